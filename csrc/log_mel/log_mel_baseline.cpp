#define RESERVE_ISA baseline
#define RESERVE_LANES 4
#define RESERVE_KERNEL log_mel_baseline
#include "log_mel_cpu_kernel.h"

#define RESERVE_ISA avx2
#define RESERVE_LANES 8
#define RESERVE_KERNEL log_mel_avx2
#include "log_mel_cpu_kernel.h"

#define RESERVE_ISA avx512
#define RESERVE_LANES 16
#define RESERVE_KERNEL log_mel_avx512
#include "log_mel_cpu_kernel.h"

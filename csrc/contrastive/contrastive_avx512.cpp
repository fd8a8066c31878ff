#define RESERVE_ISA avx512
#define RESERVE_LANES 16
#define RESERVE_KERNELS contrastive_avx512
#include "contrastive_cpu_kernel.h"

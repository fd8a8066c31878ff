#define RESERVE_ISA avx2
#define RESERVE_LANES 8
#define RESERVE_KERNELS contrastive_avx2
#include "contrastive_cpu_kernel.h"

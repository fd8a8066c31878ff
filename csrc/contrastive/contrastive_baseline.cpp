#define RESERVE_ISA baseline
#define RESERVE_LANES 4
#define RESERVE_KERNELS contrastive_baseline
#include "contrastive_cpu_kernel.h"

#define RESERVE_KERNEL adamw_avx2
#include "adamw_cpu_kernel.h"

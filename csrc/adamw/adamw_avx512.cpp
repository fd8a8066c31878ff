#define RESERVE_KERNEL adamw_avx512
#include "adamw_cpu_kernel.h"

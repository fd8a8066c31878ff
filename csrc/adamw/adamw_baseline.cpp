#define RESERVE_KERNEL adamw_baseline
#include "adamw_cpu_kernel.h"

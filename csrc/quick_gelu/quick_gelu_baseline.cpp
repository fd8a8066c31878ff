#define RESERVE_KERNEL quick_gelu_baseline
#include "quick_gelu_cpu_kernel.h"

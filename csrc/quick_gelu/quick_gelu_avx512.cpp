#define RESERVE_KERNEL quick_gelu_avx512
#include "quick_gelu_cpu_kernel.h"

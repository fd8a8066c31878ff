#define RESERVE_ISA avx512
#define RESERVE_LANES 16
#define RESERVE_KERNEL attention_avx512
#include "attention_cpu_kernel.h"

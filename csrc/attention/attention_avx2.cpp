#define RESERVE_ISA avx2
#define RESERVE_LANES 8
#define RESERVE_KERNEL attention_avx2
#include "attention_cpu_kernel.h"

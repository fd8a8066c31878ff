#define RESERVE_ISA baseline
#define RESERVE_LANES 4
#define RESERVE_KERNEL attention_baseline
#include "attention_cpu_kernel.h"

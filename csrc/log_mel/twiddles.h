// The constants of each plan, made once per process.
#pragma once

#include "plan.h"

namespace reserve {

bool has_plan(int n_fft) noexcept;

// The three tables of a plan in one array (see twiddles_in); `n_fft` has a plan.
const float* twiddle_tables(int n_fft) noexcept;
Twiddles twiddles_for(int n_fft) noexcept;

}  // namespace reserve

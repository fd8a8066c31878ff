// The constants of each plan, made once per process.
#pragma once

#include "plan.h"

namespace reserve {

// `n_fft` is one of the three that have a plan.
Twiddles twiddles_for(int n_fft) noexcept;

}  // namespace reserve

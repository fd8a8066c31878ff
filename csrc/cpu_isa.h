// Which instruction sets this processor and this build have.
#pragma once

#include <cstdint>

namespace reserve {

// Whether the code for `isa`, one of reserve_isa but AUTO, can run here.
bool can_run(int32_t isa) noexcept;

// `isa` itself, or for AUTO the best that can run here.
int32_t best_isa(int32_t isa) noexcept;

}  // namespace reserve

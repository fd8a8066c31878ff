// Which instruction sets this processor and this build have.
#pragma once

#include <cstdint>

namespace reserve {

// Whether this processor and build can run `isa`, one of reserve_isa except AUTO.
bool can_run(int32_t isa) noexcept;

// `isa` itself, or for AUTO the best that this processor and build can run.
int32_t best_isa(int32_t isa) noexcept;

}  // namespace reserve

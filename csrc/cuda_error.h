// The last CUDA error of each thread, for reserve_status_message.
#pragma once

namespace reserve {

// Keeps a copy of the error's name and what it means.
void keep_cuda_error(const char* name, const char* meaning) noexcept;

}  // namespace reserve

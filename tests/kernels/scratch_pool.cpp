// Takes COUNT blocks of BYTES from a ScratchPool, gives them back and takes them again: `scratch_pool COUNT BYTES`. Prints
// how many of the second time are new memory.
#include "scratch_pool.h"

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {
int allocations = 0;
}

// Takes the place of the C library's.
extern "C" int posix_memalign(void** memory, size_t alignment, size_t bytes) noexcept {
  ++allocations;
  *memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  return 0;
}

int main(int, char** arguments) {
  const int count = std::atoi(arguments[1]);
  const size_t bytes = std::strtoull(arguments[2], nullptr, 10);
  reserve::ScratchPool pool;
  std::vector<void*> blocks(count);
  for (int time = 0; time < 2; ++time) {
    allocations = 0;
    for (void*& block : blocks) block = pool.take(bytes);
    for (void* block : blocks) pool.give_back(block);
  }
  std::printf("%d\n", allocations);
}

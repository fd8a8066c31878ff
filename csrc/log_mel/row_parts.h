// Rows shared out among threads.
#pragma once

#include <atomic>
#include <cstdint>

#include "cpu_threads.h"

namespace reserve {

// Rows 0 to `rows`, a part for each thread, so that each reads and writes memory from front to back. A thread that has
// finished its part helps with the others. Rows are taken `turn` at a time.
class RowParts {
 public:
  RowParts(int64_t rows, int64_t turn, int64_t parts) noexcept
      : count_(parts < 1 ? 1 : parts < most_threads ? parts : most_threads), turn_(turn) {
    const int64_t turns = (rows + turn - 1) / turn;
    int64_t begin = 0;
    for (int64_t i = 0; i < count_; ++i) {
      const int64_t end = begin + (turns / count_ + (i < turns % count_ ? 1 : 0)) * turn;
      parts_[i].next = begin;
      parts_[i].end = end < rows ? end : rows;  // only the last turn of all may be short, and later parts empty
      begin = end;
    }
  }

  int64_t count() const noexcept { return count_; }

  // Calls call(begin, end) for turns of part `first`, then for those of the others, until none is left.
  template <typename Call>
  void each(int64_t first, const Call& call) noexcept {
    for (int64_t i = 0; i < count_; ++i) {
      Part& part = parts_[(first + i) % count_];
      for (int64_t begin = part.next.fetch_add(turn_); begin < part.end; begin = part.next.fetch_add(turn_))
        call(begin, begin + turn_ < part.end ? begin + turn_ : part.end);
    }
  }

 private:
  struct alignas(64) Part {
    std::atomic<int64_t> next;
    int64_t end;
  };

  const int64_t count_, turn_;
  Part parts_[most_threads];
};

}  // namespace reserve

// Calls an op where scratch memory is short: `out_of_memory LIBRARY OP THREADS ALLOCATIONS CALLS`. Only so many allocations
// succeed, and none returns before each thread has asked for one. Prints for each call the status and how
// many allocations it asked for.
#include <dlfcn.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "reserve_native.h"

namespace {
std::atomic<int> left{0}, asked{0};
int threads = 0;
}

// Takes the place of the C library's.
extern "C" int posix_memalign(void** memory, size_t alignment, size_t bytes) noexcept {
  ++asked;
  // Ten seconds at most, should the system give fewer threads.
  for (int i = 0; i < 10000 && asked < threads; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  if (left-- <= 0) return ENOMEM;
  *memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  return 0;
}

// A problem of each op that is worth more than 20 threads.
class LogMel {
 public:
  LogMel() {
    problem_.waveform = waveform_.data();
    problem_.clips = 1;
    problem_.samples = frames * hop_length;
    problem_.frames = frames;
    problem_.n_fft = problem_.window_length = n_fft;
    problem_.start = -n_fft / 2;
    problem_.frame_extra = hop_length;
    problem_.power = 2;
    problem_.log = problem_.relative = 1;
    problem_.out_scale = 1.0f;
    problem_.hop_length = hop_length;
    problem_.n_mels = 1;
    problem_.window = window_.data();
    problem_.band_start = start_;
    problem_.band_row = row_;
    problem_.band_weight = weight_.data();
    problem_.offset = 0.1f;
    problem_.out = out_.data();
  }

  int32_t run(void* library) const {
    const auto call = reinterpret_cast<decltype(&reserve_log_mel_cpu)>(dlsym(library, "reserve_log_mel_cpu"));
    return call(&problem_, threads, RESERVE_ISA_AUTO);
  }

 private:
  static constexpr int frames = 10000, n_fft = 1536, hop_length = 10;
  const std::vector<float> waveform_ = std::vector<float>(frames * hop_length, 0.5f);
  const std::vector<float> window_ = std::vector<float>(n_fft, 0.5f), weight_ = std::vector<float>(20, 1.0f);
  const int32_t start_[1] = {10}, row_[2] = {0, 20};
  std::vector<float> out_ = std::vector<float>(frames);
  reserve_log_mel problem_{};
};

class Attention {
 public:
  Attention() {
    for (int s = 0; s <= sequences; ++s) starts_.push_back(s * length);
    problem_.q = qkv_.data();
    problem_.k = qkv_.data() + 64;
    problem_.v = qkv_.data() + 128;
    problem_.cu_seqlens = problem_.cu_seqlens_k = starts_.data();
    problem_.out = out_.data();
    problem_.lse = lse_.data();
    problem_.tokens = problem_.tokens_k = tokens;
    problem_.sequences = sequences;
    problem_.heads = problem_.kv_heads = 1;
    problem_.q_stride = problem_.kv_stride = 3 * 64;
    problem_.head_size = 64;
    problem_.scale = 0.125f;
  }

  int32_t run(void* library) const {
    const auto call = reinterpret_cast<decltype(&reserve_attention_cpu)>(dlsym(library, "reserve_attention_cpu"));
    return call(&problem_, threads, RESERVE_ISA_AUTO);
  }

 private:
  static constexpr int sequences = 300, length = 64, tokens = sequences * length;
  const std::vector<float> qkv_ = std::vector<float>(tokens * 3 * 64, 0.5f);
  std::vector<int32_t> starts_;
  std::vector<float> out_ = std::vector<float>(tokens * 64), lse_ = std::vector<float>(tokens);
  reserve_attention problem_{};
};

int main(int, char** arguments) {
  void* library = dlopen(arguments[1], RTLD_NOW);
  const bool is_log_mel = std::strcmp(arguments[2], "log_mel") == 0;
  threads = std::atoi(arguments[3]);
  left = std::atoi(arguments[4]);
  const LogMel log_mel;
  const Attention attention;
  for (int calls = std::atoi(arguments[5]); calls > 0; --calls) {
    asked = 0;
    const int32_t status = is_log_mel ? log_mel.run(library) : attention.run(library);
    std::printf("%d %d\n", status, asked.load());
  }
}

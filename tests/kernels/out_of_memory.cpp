// Calls log-mel where scratch memory is short: `out_of_memory LIBRARY THREADS ALLOCATIONS CALLS`. Only so many
// allocations succeed, and none returns before each thread has asked for one. Prints for each call the status and how
// many allocations it asked for.
#include <dlfcn.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
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

int main(int, char** arguments) {
  void* library = dlopen(arguments[1], RTLD_NOW);
  const auto run = reinterpret_cast<decltype(&reserve_log_mel_cpu)>(dlsym(library, "reserve_log_mel_cpu"));
  threads = std::atoi(arguments[2]);
  left = std::atoi(arguments[3]);
  constexpr int frames = 10000, n_fft = 1536, hop_length = 10;
  const std::vector<float> waveform(frames * hop_length, 0.5f), window(n_fft, 0.5f), weight(20, 1.0f);
  const int32_t start[] = {10}, row[] = {0, 20};
  std::vector<float> out(frames);
  reserve_log_mel problem{};
  problem.waveform = waveform.data();
  problem.clips = 1;
  problem.samples = frames * hop_length;
  problem.frames = frames;
  problem.n_fft = n_fft;
  problem.hop_length = hop_length;
  problem.n_mels = 1;
  problem.window = window.data();
  problem.band_start = start;
  problem.band_row = row;
  problem.band_weight = weight.data();
  problem.offset = 0.1f;
  problem.out = out.data();
  for (int calls = std::atoi(arguments[4]); calls > 0; --calls) {
    asked = 0;
    const int32_t status = run(&problem, threads, RESERVE_ISA_AUTO);
    std::printf("%d %d\n", status, asked.load());
  }
}

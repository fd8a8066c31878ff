// Drives log_mel_cuda.cu on the simulated runtime: `log_mel races|values|limit|errors`. Ends with 1 and a line on
// what is wrong.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "cuda_runtime.h"

namespace reserve {
namespace log_mel_on_gpu {
alignas(16) float shared[1 << 16];
}
}  // namespace reserve
#include "../../../csrc/log_mel/log_mel_cuda.cu"

namespace {

// The device: what a block may have, what each call returns, and what the kernel's limit was last set to.
constexpr int most_shared = 232448;
cudaError_t launch_error = cudaSuccess, attribute_error = cudaSuccess;
unsigned most_threads = 1024;
int kernel_limit = 48 << 10;
int launches = 0;
std::function<void()> between_limit_and_launch;

void fail(const char* what) {
  std::fprintf(stderr, "%s\n", what);
  std::exit(1);
}

template <typename Problem>
void run_blocks(const void* entry, const void* argument, unsigned blocks, unsigned threads) {
  const auto kernel = reinterpret_cast<void (*)(Problem)>(const_cast<void*>(entry));
  const Problem& problem = *static_cast<const Problem*>(argument);

  pthread_barrier_init(&block_barrier, nullptr, threads);
  for (unsigned w = 0; w < threads / 32; ++w) pthread_barrier_init(&warp_barriers[w], nullptr, 32);
  std::vector<std::thread> all;
  for (unsigned t = 0; t < threads; ++t)
    all.emplace_back([=, &problem] {
      for (unsigned b = 0; b < blocks; ++b) {
        threadIdx.x = t;
        blockIdx.x = b;
        __syncthreads();
        if (t == 0)
          for (float& x : reserve::log_mel_on_gpu::shared) x = NAN;
        __syncthreads();
        kernel(problem);
      }
    });
  for (std::thread& thread : all) thread.join();
}

// A problem of noise with the arrays that it points to.
struct Case {
  std::vector<float> waveform, window, weight, twiddles;
  std::vector<int16_t> integers;
  std::vector<int64_t> offsets{0, 5000, 5000, 9001};
  std::vector<int32_t> start, row{0}, placed_row{0}, places;
  std::vector<reserve_placed_weight> placed_weight;
  std::vector<float> out;
  reserve_log_mel problem{};

  Case(Case&&) = default;  // the arrays stay where they are
  // The kernel of fixed passes takes it as it is made, that of mixed ones with `any_front_end`.
  Case(int n_fft, int hop, bool ragged, bool any_front_end = false, int n_mels = 40)
      : waveform(9001), window(static_cast<size_t>(n_fft)) {
    uint32_t state = 1;
    const auto noise = [&] {
      state = state * 1664525u + 1013904223u;
      return static_cast<float>(state) / 4294967296.0f - 0.5f;
    };
    for (float& x : waveform) x = noise();
    for (float& x : window) x = noise();
    problem.waveform = waveform.data();
    problem.clips = ragged ? 3 : 1;
    problem.samples = 9001;
    if (ragged) problem.clip_offsets = offsets.data();
    problem.n_fft = problem.window_length = n_fft;
    problem.hop_length = hop;
    problem.start = -n_fft / 2;
    problem.frame_extra = hop;
    problem.power = 2;
    problem.n_mels = n_mels;
    problem.log = problem.relative = 1;
    problem.offset = 0.1f;
    problem.out_scale = 1.0f;
    problem.append = 1;
    problem.append_value = 2.0f;
    if (any_front_end) {
      for (const float x : waveform) integers.push_back(static_cast<int16_t>(x * 2000.0f));
      problem.waveform = integers.data();
      problem.in_dtype = RESERVE_INT16;
      problem.window_length = n_fft - 3;
      problem.pad_mode = RESERVE_PAD_SYMMETRIC;
      problem.remove_dc = 1;
      problem.preemphasis = 0.97f;
      problem.power = 1;
      problem.append = 0;
      problem.bands_first = 1;
    }
    problem.frames = 1 + (ragged ? 5000 : 9001) / hop;
    problem.window = window.data();
    make_bands(noise);
    out.assign(static_cast<size_t>(problem.clips * problem.frames * (n_mels + problem.append)), NAN);
    problem.out = out.data();
  }

  template <typename Noise>
  void make_bands(const Noise& noise) {
    int32_t floats = 0, bins = 0;
    reserve_log_mel_table_sizes(&problem, &floats, &bins);
    twiddles.resize(static_cast<size_t>(floats));
    places.resize(static_cast<size_t>(bins));
    reserve_log_mel_tables(&problem, twiddles.data(), places.data());
    for (int m = 0; m < problem.n_mels; ++m) {
      const int from = m * (bins - 50) / problem.n_mels, width = m % 50;
      start.push_back(from);
      row.push_back(row.back() + width);
      for (int i = 0; i < width; ++i) {
        weight.push_back(std::fabs(noise()));
        placed_weight.push_back({places[static_cast<size_t>(from + i)], weight.back()});
      }
      while (placed_weight.size() % 4 != 0) placed_weight.push_back({placed_weight.back().place, 0.0f});
      placed_row.push_back(static_cast<int32_t>(placed_weight.size()));
    }
    problem.band_start = start.data();
    problem.band_row = row.data();
    problem.band_weight = weight.data();
    problem.twiddles = twiddles.data();
    problem.places = places.data();
    problem.placed_row = placed_row.data();
    problem.placed_weight = placed_weight.data();
  }
};

// A front end of its own for each kernel and for each number of frames a block.
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const bool ragged : {false, true}) {
    for (const int speed : {1, 2, 3}) all.emplace_back(1536 * speed, 588 * speed, ragged);
    for (const int n_fft : {400, 1875, 4096}) all.emplace_back(n_fft, n_fft / 2 - 41, ragged, true);
    all.emplace_back(480, 700, ragged, true);
  }
  return all;
}

// What threads touch without a barrier between them. ThreadSanitizer forgets what it saw when there are more than 255,
// so a warp of the largest block stays away: the values are then wrong, but where a thread reads and writes is not.
void races() {
  most_threads = 224;
  for (Case& c : cases())
    if (reserve_log_mel_cuda(&c.problem, nullptr) != RESERVE_OK) fail("the launch failed");
}

// The kernel writes to the bit what its code gives thread after thread.
void values() {
  std::vector<Case> all = cases(), expected = cases();
  for (size_t i = 0; i < all.size(); ++i) {
    if (reserve_log_mel_cuda(&all[i].problem, nullptr) != RESERVE_OK) fail("the launch failed");
    if (reserve_log_mel_emulated(&expected[i].problem) != RESERVE_OK) fail("the emulation failed");
    if (std::memcmp(all[i].out.data(), expected[i].out.data(), all[i].out.size() * sizeof(float)) != 0)
      fail("threads at once and one after another disagree");
  }
}

// Another host thread, with a hop that needs less shared memory, comes between the two calls of this one.
void limit() {
  Case large(1536, 1536, false), small(1536, 2, false);
  int32_t inner = -1;
  between_limit_and_launch = [&] {
    between_limit_and_launch = nullptr;
    inner = reserve_log_mel_cuda(&small.problem, nullptr);
  };
  launch_error = cudaErrorMemoryAllocation;  // what runs does not matter here
  launches = 0;
  reserve_log_mel_cuda(&large.problem, nullptr);
  if (launches != 2) fail("a launch asked for more shared memory than another call had left as the limit");
}

void expect(int32_t status, int32_t expected, const char* text, const char* what) {
  if (status != expected) fail(what);
  if (std::strstr(reserve_status_message(status), text) == nullptr) fail(reserve_status_message(status));
}

void errors() {
  Case c(1536, 588, false);
  const auto run = [&] { return reserve_log_mel_cuda(&c.problem, nullptr); };
  launch_error = cudaErrorIllegalAddress;
  expect(run(), RESERVE_CUDA_ERROR, "cudaErrorIllegalAddress: text of 700", "a launch that fails");
  std::thread([] {
    expect(RESERVE_CUDA_ERROR, RESERVE_CUDA_ERROR, "none in this thread", "another thread");
  }).join();
  launch_error = cudaErrorMemoryAllocation;
  expect(run(), RESERVE_OUT_OF_MEMORY, "out of memory", "no memory for the launch");
  attribute_error = cudaErrorInvalidValue;
  expect(run(), RESERVE_CUDA_ERROR, "cudaErrorInvalidValue: text of 1", "an attribute that fails");
  for (const cudaError_t error :
       {cudaErrorNoKernelImageForDevice, cudaErrorInvalidDeviceFunction, cudaErrorUnsupportedPtxVersion}) {
    attribute_error = error;
    expect(run(), RESERVE_UNSUPPORTED, "not supported", "no code for the device");
  }
}

}  // namespace

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = most_shared;
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int value) {
  kernel_limit = value;
  if (between_limit_and_launch) between_limit_and_launch();
  return attribute_error;
}
cudaError_t cudaLaunchKernel(const void* kernel, dim3 blocks, dim3 threads, void** arguments, size_t shared_bytes,
                             cudaStream_t) {
  if (shared_bytes > static_cast<size_t>(kernel_limit)) return cudaErrorInvalidValue;
  ++launches;
  if (launch_error != cudaSuccess) return launch_error;
  const bool mixed = kernel == reinterpret_cast<const void*>(reserve::log_mel_mixed_kernel);
  const auto run = mixed ? run_blocks<reserve::MixedProblem> : run_blocks<reserve_log_mel>;
  run(kernel, arguments[0], blocks.x, std::min(threads.x, most_threads));
  return cudaSuccess;
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaErrorIllegalAddress ? "cudaErrorIllegalAddress" : "cudaErrorInvalidValue";
}
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorIllegalAddress ? "text of 700" : "text of 1";
}

int main(int, char** arguments) {
  const std::string what = arguments[1];
  what == "races" ? races() : what == "values" ? values() : what == "limit" ? limit() : errors();
}

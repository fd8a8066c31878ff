// The C interface of Reserve's native ops: pointers, sizes, and threads or a stream. It knows no torch.
//
// Every function returns a reserve_status; none throws, none keeps a pointer after it returned.
#ifndef RESERVE_NATIVE_H
#define RESERVE_NATIVE_H

#include <stdint.h>

#if defined(__GNUC__)
#define RESERVE_API __attribute__((visibility("default")))
#else
#define RESERVE_API
#endif

// Increase it whenever a struct or a signature below changes, together with ABI_VERSION in kernels/native.py.
#define RESERVE_ABI_VERSION 8

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  RESERVE_OK = 0,
  RESERVE_INVALID_ARGUMENT = 1,
  RESERVE_UNSUPPORTED = 2,
  RESERVE_OUT_OF_MEMORY = 3,
  RESERVE_CUDA_ERROR = 4,
} reserve_status;

typedef enum { RESERVE_FLOAT32 = 0, RESERVE_BFLOAT16 = 1, RESERVE_FLOAT16 = 2, RESERVE_INT16 = 3 } reserve_dtype;
// What lies beyond the ends of a clip. Only CONSTANT (zeros) does not repeat the clip's samples, to and fro or over and over
// where the padding is longer than the clip.
typedef enum {
  RESERVE_PAD_REFLECT = 0,    // the reflection about the end sample: c b | a b c | b a
  RESERVE_PAD_CONSTANT = 1,
  RESERVE_PAD_REPLICATE = 2,  // the end sample
  RESERVE_PAD_CIRCULAR = 3,   // the other end: b c | a b c | a b
  RESERVE_PAD_SYMMETRIC = 4,  // the reflection that repeats the end sample: b a | a b c | c b
} reserve_pad_mode;
typedef enum { RESERVE_ROTARY_DIAGONAL = 0, RESERVE_ROTARY_STANDARD = 1 } reserve_rotary;

// Instruction sets of the CPU ops. AUTO takes the best that this processor and this build have.
typedef enum {
  RESERVE_ISA_AUTO = 0,
  RESERVE_ISA_BASELINE = 1,
  RESERVE_ISA_AVX2 = 2,
  RESERVE_ISA_AVX512 = 3,
} reserve_isa;

RESERVE_API int32_t reserve_abi_version(void);
// 1 if the library has CUDA code, else 0.
RESERVE_API int32_t reserve_has_cuda(void);
// 1 if this processor and this build have `isa`, else 0.
RESERVE_API int32_t reserve_has_isa(int32_t isa);
// What a status means, in English; never null. For RESERVE_CUDA_ERROR the last CUDA error of the calling thread, which
// its next one overwrites.
RESERVE_API const char* reserve_status_message(int32_t status);

// The weight of a bin in a band, and the index of the bin's power in the shared memory of a CUDA block.
typedef struct {
  int32_t place;
  float weight;
} reserve_placed_weight;

// Log-mel spectrograms of `clips` clips. Frame f of a clip covers its samples [f * hop_length + start, .. + window_length),
// padded as pad_mode says; a clip has max(0, floor((samples + frame_extra) / hop_length)) frames, an empty clip none. Of a
// frame: the mean is subtracted if remove_dc, then x[i] -= preemphasis * x[i - 1] for all i at once (x[-1] is x[0]), then it
// is multiplied by the window and followed by zeros up to n_fft. Bands are sums of weights times |X|^power, and
//   out = out_scale * ln(max(mel, floor) + offset) + out_shift, with ln(floor + offset) subtracted first if `relative`, or
//   out = out_scale * mel + out_shift without `log`.
// A NaN or infinite sample makes its frames NaN.
typedef struct {
  const void* waveform;         // of in_dtype
  const int64_t* clip_offsets;  // [clips + 1] into waveform, not decreasing; null: clips lie clip_stride apart
  int64_t clips;
  int64_t samples;      // of each clip; with clip_offsets: length of waveform
  int64_t clip_stride;  // samples from one clip to the next, 0 to repeat one clip; unused with clip_offsets
  int64_t frames;       // rows written per clip; those beyond the clip's own are 0
  int64_t start;
  int64_t frame_extra;
  int32_t in_dtype;      // float, bfloat16, float16 or int16; integers are not scaled
  int32_t n_fft;         // 2^a 3^b 5^c from 2 to 8192
  int32_t window_length; // at most n_fft
  int32_t hop_length;
  int32_t pad_mode;
  int32_t remove_dc;     // 0 or 1
  float preemphasis;     // 0: none
  int32_t power;         // 1 or 2
  int32_t n_mels;
  int32_t log;           // 0 or 1
  const float* window;        // [window_length], times the factor that samples are to be scaled by
  const int32_t* band_start;  // [n_mels] first bin of each band
  const int32_t* band_row;    // [n_mels + 1] where each band's weights start in band_weight
  const float* band_weight;
  float floor;
  float offset;          // with `log`, floor + offset is a normal positive number
  int32_t relative;      // 0 or 1
  float out_scale;
  float out_shift;
  int32_t append;        // 1: a last column of `append_value`, so rows of n_mels + 1
  float append_value;
  int32_t bands_first;   // 1: out is [clips, n_mels, frames]; `append` is 0
  int32_t out_dtype;     // float or bfloat16
  void* out;             // [clips, frames, n_mels + append]
  const float* twiddles;      // for CUDA: from reserve_log_mel_tables
  const int32_t* places;      // for CUDA: from reserve_log_mel_tables
  const int32_t* placed_row;  // for CUDA: [n_mels + 1] where each band's weights start in placed_weight, multiples of 4
  // For CUDA: the weights of each band with the places of their powers, padded with zero weights.
  const reserve_placed_weight* placed_weight;
} reserve_log_mel;

// Runs on the CPU with up to `threads` threads. The result does not depend on `threads`.
RESERVE_API int32_t reserve_log_mel_cpu(const reserve_log_mel* problem, int32_t threads, int32_t isa);
// The same for floats, which it then limits in each clip to at least the largest less `below`, or if that is negative to
// at most the smallest less `below`. All are NaN where one is. Appended columns and rows beyond the clip's own do not
// count.
RESERVE_API int32_t reserve_log_mel_limited_cpu(const reserve_log_mel* problem, float below, int32_t threads,
                                                int32_t isa);

// The lengths of the tables of a problem, and the tables: the twiddles of its transform, and for each bin the index of
// its power in the shared memory of a CUDA block. They are functions of the problem's numbers; its pointers are not used.
RESERVE_API int32_t reserve_log_mel_table_sizes(const reserve_log_mel* problem, int32_t* twiddles, int32_t* places);
RESERVE_API int32_t reserve_log_mel_tables(const reserve_log_mel* problem, float* twiddles, int32_t* places);

// The bytes of shared memory that a block of reserve_log_mel_cuda needs for a problem, whose pointers are not used. The
// kernel runs on devices of compute capability 8.0 or newer whose blocks can opt in to that much.
RESERVE_API int32_t reserve_log_mel_cuda_shared_bytes(const reserve_log_mel* problem, int64_t* bytes);

// Launches on `stream` (a cudaStream_t) of the current CUDA device and does not wait; every pointer is to memory of
// the device. n_mels is at most 1024, window and twiddles are aligned to 8 bytes, placed_weight to 16. Only in libraries
// with CUDA code.
RESERVE_API int32_t reserve_log_mel_cuda(const reserve_log_mel* problem, void* stream);
// Runs the same block code thread by thread on the CPU, with pointers to CPU memory, to test it without a GPU.
RESERVE_API int32_t reserve_log_mel_emulated(const reserve_log_mel* problem);

// A tensor that reserve_adamw_* updates and the arrays for it, of `count` numbers each, which must not overlap.
typedef struct {
  float* weight;
  const float* gradient;
  void* m;                // first moment: float, or bfloat16
  void* v;                // second moment: float, or bfloat16 holding its cube with a sign that adds a bit
  const uint16_t* start;  // bfloat16 weights that decay pulls towards; null: 0
  int64_t count;
} reserve_adamw_tensor;

// The random bits that round a tensor's moments: those of its number i are a function of `key` and first + i.
typedef struct {
  uint64_t key;
  uint64_t first;  // the index of the tensor's first number in the whole tensor, if it is a shard of one
} reserve_adamw_random;

// One step of AdamW: m = beta1 m + rest1 g, v = beta2 v + rest2 g^2,
// w -= learning_rate (m_scale m / (sqrt(v_scale v) + eps) + weight_decay (w - start)), the moments in float throughout
// and rounded only where they are stored. A g that is not finite counts as 0, and a finite one is clamped to +-2^21 (float
// moments: +-2^63), so that v stays finite.
typedef struct {
  float learning_rate;
  float beta1;
  float rest1;  // 1 - beta1
  float beta2;
  float rest2;  // 1 - beta2
  float eps;
  float weight_decay;
  float m_scale;
  float v_scale;
  int32_t moments_dtype;
} reserve_adamw_settings;

// Updates `count` tensors on the CPU with up to `threads` threads. The result does not depend on `threads`.
// `random` holds an element for each tensor, and bfloat16 moments are rounded stochastically. If it is null, moments are
// rounded to the nearest value; it must be null for float moments.
RESERVE_API int32_t reserve_adamw_cpu(const reserve_adamw_settings* settings, const reserve_adamw_tensor* tensors,
                                      const reserve_adamw_random* random, int64_t count, int32_t threads, int32_t isa);
// Launches the same on `stream` of the current CUDA device and does not wait. `tensors` and `random` are arrays of the
// host; the pointers in `tensors` are to memory of the device. Only in libraries with CUDA code.
RESERVE_API int32_t reserve_adamw_cuda(const reserve_adamw_settings* settings, const reserve_adamw_tensor* tensors,
                                       const reserve_adamw_random* random, int64_t count, void* stream);
// Runs the block code of reserve_adamw_cuda thread by thread on the CPU, with pointers to CPU memory.
RESERVE_API int32_t reserve_adamw_emulated(const reserve_adamw_settings* settings, const reserve_adamw_tensor* tensors,
                                           const reserve_adamw_random* random, int64_t count);

// Bias + quick GELU of `rows` rows of `features` numbers, contiguous: out = z sigmoid(1.702 z), z = x + bias. With a
// gradient of that: out is the gradient of x, and grad_bias that of the bias. Arrays of dtype are float or bfloat16; the
// arithmetic is float. x, grad and out must not overlap.
typedef struct {
  const void* grad;   // of dtype; null: compute the value
  const void* x;      // of dtype
  const float* bias;  // [features]; null: 0
  void* out;          // of dtype
  float* grad_bias;   // [features] if there are a gradient and a bias, else null
  int64_t rows;
  int64_t features;
  int32_t dtype;
} reserve_quick_gelu;

// Runs on the CPU with up to `threads` threads. The result does not depend on `threads`.
RESERVE_API int32_t reserve_quick_gelu_cpu(const reserve_quick_gelu* problem, int32_t threads, int32_t isa);

// Attention of packed sequences, each query to the keys of its own sequence, with the rotary position inside. With
// `grad`, the gradient of the output, it computes grad_q, grad_k and grad_v from the inputs and what the forward pass wrote;
// without, it writes `out` and `lse`. Arrays of dtype are float or bfloat16; the arithmetic is float. Nothing written may
// overlap anything else. Where queries and keys are the same tokens, the members of the keys are those of the queries.
typedef struct {
  const void* q;  // of dtype: head h of token t is at q + t q_stride + h head_size
  const void* k;  // of dtype, with kv_stride and kv_heads; query head h attends to head h / (heads / kv_heads)
  const void* v;
  const int32_t* cu_seqlens;    // [sequences + 1], from 0 to tokens, not decreasing: where each sequence's queries start
  const int32_t* cu_seqlens_k;  // [sequences + 1], from 0 to tokens_k
  const float* angles;    // [tokens, token_angles] in radians, for the first 2 token_angles numbers; null: no position
  const float* angles_k;  // [tokens_k, token_angles]
  const int32_t* segment_ids;    // [tokens]: queries attend to keys of the same id; null: to all of their sequence
  const int32_t* segment_ids_k;  // [tokens_k]
  const void* grad;  // of dtype [tokens, heads, head_size]; null: the forward pass
  void* out;         // of dtype [tokens, heads, head_size]; 0 for a query without keys
  float* lse;        // [tokens, heads], the logarithms of the sums of the exponentials of the scores
  void* grad_q;      // of dtype, laid out like q, k and v, with grad; else null
  void* grad_k;
  void* grad_v;
  int64_t tokens;    // at most INT32_MAX
  int64_t tokens_k;  // at most INT32_MAX
  int64_t sequences;
  int64_t heads;     // a multiple of kv_heads
  int64_t kv_heads;
  int64_t q_stride;  // numbers from one token to the next
  int64_t kv_stride;
  int32_t head_size;     // 32, 64, 96 or 128
  int32_t token_angles;  // from 1 to head_size / 2 with angles
  float scale;           // of the scores
  int32_t rotary;        // a reserve_rotary
  int32_t dtype;
} reserve_attention;

// Runs on the CPU with up to `threads` threads. The result does not depend on `threads`. Each takes scratch memory of
// about 1.3 KB for each token of the longest sequence, for 64 numbers a head.
RESERVE_API int32_t reserve_attention_cpu(const reserve_attention* problem, int32_t threads, int32_t isa);

// Scaling of the vectors of contrastive_loss: out = factor x / sqrt(sum x^2 + epsilon) for each row. With the gradient of
// that, out is the gradient of x, and shares[row] that of log(factor): of_factor times the sum of the gradient times the
// row's unit vector. Arrays of vectors are [rows, dim]; out may be grad, and must not overlap otherwise.
typedef struct {
  const float* x;
  const float* grad;  // null: compute the value
  float* out;
  float* shares;  // [rows] if there is a gradient
  int64_t rows;
  int64_t dim;
  float factor;
  float of_factor;
  float epsilon;
  float limit;  // rows with larger elements are divided by the largest one first
} reserve_contrastive_scale;

// Runs on the CPU with up to `threads` threads. The result does not depend on `threads`.
RESERVE_API int32_t reserve_contrastive_scale_cpu(const reserve_contrastive_scale* problem, int32_t threads,
                                                  int32_t isa);

// The logsumexp of each row of a block of logits, and of each column the block's part of it.
typedef struct {
  float* logits;    // [rows, columns]
  float* row_lse;   // [rows]; null: not wanted
  double* column_sum;  // [columns] sums of exp, which the block's are added to; null: not wanted
  float* column_max;   // [columns] what is subtracted from the logits in column_sum; null if they are bounded
  float* diagonal;  // [rows] the logits of row i and column first + i; null: not wanted
  int64_t rows;
  int64_t columns;
  int64_t first;
  int32_t bounded;  // 1: no exp of a logit, nor a sum of them, overflows or underflows. No maximum is subtracted then.
  int32_t store;    // 1: replace the logits, which are bounded, by their exp
} reserve_contrastive_logsumexp;

// Runs on the CPU with up to `threads` threads. The result does not depend on `threads`.
RESERVE_API int32_t reserve_contrastive_logsumexp_cpu(const reserve_contrastive_logsumexp* problem, int32_t threads,
                                                      int32_t isa);

// The gradient of a block of logits: exp(logit - row_lse) row_grad + exp(logit - column_lse) column_grad, and on the
// diagonal diagonal_grad more.
typedef struct {
  const float* logits;     // [rows, columns]
  float* weights;          // [rows, columns]; may be logits
  const float* row_grad;   // [rows]; null: none, and the same for its logsumexp
  const float* row_lse;
  const float* column_grad;  // [columns]; null: none, and the same for its logsumexp
  const float* column_lse;
  const float* diagonal_grad;  // [rows], for row i and column first + i; null: none
  int64_t rows;
  int64_t columns;
  int64_t first;
  int32_t bounded;        // as in reserve_contrastive_logsumexp
  int32_t exponentiated;  // 1: `logits` holds their exp
} reserve_contrastive_weights;

// Runs on the CPU with up to `threads` threads. The result does not depend on `threads`.
RESERVE_API int32_t reserve_contrastive_weights_cpu(const reserve_contrastive_weights* problem, int32_t threads,
                                                    int32_t isa);

#ifdef __cplusplus
}
#endif

#endif

// The operator voxrill::MatMulNBits: the inputs and attributes of com.microsoft::MatMulNBits, and what the library exports.
#include <atomic>
#include <cstring>
#include <mutex>
#include <utility>

#include "attention.h"
#include "host.h"
#include "products.h"

#if defined(_WIN32)
#define VOXRILL_EXPORT extern "C" __declspec(dllexport)
#else
#define VOXRILL_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace voxrill {

namespace ort {
const void* const* api = nullptr;
}

namespace {

const Kernels* const kAll[] = {  // best first
#if defined(__x86_64__)
    &avx512_vnni, &avx_vnni, &avx2,
#elif defined(__aarch64__)
    &neon_i8mm,   &neon_dotprod,
#endif
    &portable};

const Kernels* best() {
  for (const Kernels* kernels : kAll)
    if (kernels->runs_here()) return kernels;
  return &portable;
}

std::atomic<const Kernels*> chosen{nullptr};

}  // namespace

const Kernels& kernels() {
  if (!chosen.load(std::memory_order_relaxed)) chosen = best();
  return *chosen.load(std::memory_order_relaxed);
}

namespace {

Shape shape_of(const void* info) {
  const int64_t columns = attribute(info, "K"), rows = attribute(info, "N"), bits = attribute(info, "bits");
  const int64_t block = attribute(info, "block_size"), most = int64_t{1} << 30;
  if (columns < 1 || rows < 1 || columns > most || rows > most) refuse("K and N must be from 1 to 2^30");
  if (bits != 2 && bits != 3 && bits != 4 && bits != 8) refuse("bits must be 2, 3, 4 or 8");
  if (block != 32 && block != 64 && block != 128 && block != 256) refuse("block_size must be 32, 64, 128 or 256");
  return {columns, rows, static_cast<int>(bits), static_cast<int>(block)};
}

std::shared_ptr<const Packed> weight_of(const void* info) {
  const Shape shape = shape_of(info);
  const Tensor values = constant(info, 1, "B"), scales = constant(info, 2, "scales");
  expect(values, "B", ort::kUint8, shape.bytes());
  const bool half = scales.type == ort::kFloat16;
  expect(scales, "scales", half ? ort::kFloat16 : ort::kFloat32, shape.rows * shape.blocks());
  const uint8_t* points = nullptr;
  if (has_input(info, 3)) {
    const Tensor given = constant(info, 3, "zero_points");
    expect(given, "zero_points", ort::kUint8, shape.rows * shape.points_row());
    points = static_cast<const uint8_t*>(given.data);
  }
  return pack(shape, {static_cast<const uint8_t*>(values.data), scales.data, half, points});
}

// A number for each row of the weight, which is added to the product; empty: none.
std::vector<float> bias_of(const void* info) {
  if (has_input(info, 4)) refuse("g_idx is not known here");
  if (!has_input(info, 5)) return {};
  const Tensor given = constant(info, 5, "bias");
  expect(given, "bias", ort::kFloat32, attribute(info, "N"));
  const float* first = static_cast<const float*>(given.data);
  return {first, first + given.count()};
}

// One run of one product: what the threads share.
struct Run {
  const Kernels* kernels;
  const float* x;
  const float* bias;  // or null
  Product product;
  int64_t piece;  // groups, or rows of activations, that a thread takes at once
};

void round_piece(void* user, size_t index) {
  const Run& run = *static_cast<const Run*>(user);
  const int64_t first = index * run.piece, last = first + run.piece;
  run.kernels->round(run.x, *run.product.weight, run.product.activations, static_cast<int>(first),
                     static_cast<int>(last < run.product.rows ? last : run.product.rows));
}

void multiply_piece(void* user, size_t index) {
  const Run& run = *static_cast<const Run*>(user);
  const int64_t groups = run.product.weight->shape.groups(), first = index * run.piece, last = first + run.piece;
  run.kernels->multiply(run.product, first, last < groups ? last : groups);
  if (!run.bias) return;
  const int64_t rows = run.product.weight->shape.rows, end = last * kRows < rows ? last * kRows : rows;
  for (float* out = run.product.out; out < run.product.out + run.product.rows * rows; out += rows)
    for (int64_t row = first * kRows; row < end; row++) out[row] += run.bias[row];
}

// More pieces than threads: a thread that is disturbed leaves the next piece to another.
constexpr int64_t kPieces = 16;

void in_parallel(void* context, Run& run, int64_t total, void (*work)(void*, size_t)) {
  run.piece = (total + kPieces - 1) / kPieces;
  const size_t pieces = (total + run.piece - 1) / run.piece;
  if (pieces == 1) return work(&run, 0);
  ask(ort::kParallelFor, static_cast<const void*>(context), work, pieces, pieces, static_cast<void*>(&run));
}

constexpr int64_t kMostRows = 240;  // of activations that are rounded at once: their copy stays in the second cache
constexpr int64_t kFewRows = 8;     // fewer are rounded by the calling thread: it takes less than waking the others

// The calling thread's buffer for rounded activations. It grows to what the largest product needs.
Activations activations_for(const Shape& shape, int64_t rows) {
  thread_local std::vector<uint8_t> buffer;
  // Without 64 bytes more, rows of 4096 columns would all want the same few places of the first cache.
  const int64_t blocks = shape.blocks(), stride = blocks * shape.block + kVector;
  const size_t scales = rows * stride, sums = scales + rows * blocks * 4;  // offsets; `stride` is a multiple of 32
  if (buffer.size() < sums + rows * blocks * 4) buffer.resize(sums + rows * blocks * 4);
  uint8_t* start = buffer.data();
  return {stride, blocks, reinterpret_cast<int8_t*>(start), reinterpret_cast<float*>(start + scales),
          reinterpret_cast<int32_t*>(start + sums)};
}

void multiply_rows(void* context, const Packed& weight, const float* bias, const float* x, float* out, int64_t rows) {
  const Shape& shape = weight.shape;
  for (int64_t first = 0; first < rows; first += kMostRows) {
    const int64_t count = rows - first < kMostRows ? rows - first : kMostRows;
    Run run{&kernels(), x + first * shape.columns, bias,
            {&weight, activations_for(shape, count), static_cast<int>(count), out + first * shape.rows}, count};
    if (count < kFewRows) round_piece(&run, 0);
    else in_parallel(context, run, count, round_piece);
    in_parallel(context, run, shape.groups(), multiply_piece);
  }
}

struct Kernel {
  static constexpr const char* kName = "MatMulNBits";
  // A, B, scales, zero_points, g_idx, bias
  static constexpr int kInputs[] = {ort::kFloat32, ort::kUint8, ort::kAny, ort::kUint8, ort::kInt32, ort::kFloat32};
  static constexpr int kOutputs[] = {ort::kFloat32};
  static constexpr size_t kNeeded = 3;

  std::shared_ptr<const Packed> weight;
  std::vector<float> bias;

  explicit Kernel(const void* info) : weight(weight_of(info)), bias(bias_of(info)) {}

  void compute(void* context) const {
    const void* value = nullptr;
    ask(ort::kGetInput, static_cast<const void*>(context), size_t{0}, &value);
    Tensor x = tensor_of(value);
    const Shape& shape = weight->shape;
    if (x.dims.empty() || x.dims.back() != shape.columns) refuse("the last dimension of A is not K");
    expect(x, "A", ort::kFloat32, x.count());
    const int64_t rows = x.count() / shape.columns;
    x.dims.back() = shape.rows;
    void *result = nullptr, *out = nullptr;
    ask(ort::kGetOutput, context, size_t{0}, static_cast<const int64_t*>(x.dims.data()), x.dims.size(), &result);
    if (!rows) return;
    ask(ort::kGetTensorMutableData, result, &out);
    multiply_rows(context, *weight, bias.empty() ? nullptr : bias.data(), static_cast<const float*>(x.data),
                  static_cast<float*>(out), rows);
  }
};

}  // namespace
}  // namespace voxrill

using voxrill::kAll;

// Called by onnxruntime for each session that wants the operators. The domains outlive all sessions.
VOXRILL_EXPORT void* RegisterCustomOps(void* options, const voxrill::ort::ApiBase* base) {
  namespace ort = voxrill::ort;
  static std::mutex mutex;  // sessions are opened by several threads
  const std::lock_guard<std::mutex> lock(mutex);
  ort::api = base->get_api(ort::kApiVersion);
  if (!ort::api) return nullptr;  // an onnxruntime before 1.18; without its table no error can be made
  static const ort::CustomOp products = voxrill::make_operator<voxrill::Kernel>(), attention = voxrill::attention();
  // The products take onnxruntime's name as well: in a session that registers them, the nodes of every bundle run here.
  static const std::pair<const char*, const ort::CustomOp*> kDomains[] = {
      {"voxrill", &products}, {"com.microsoft", &products}, {"voxrill.attention", &attention}};
  static std::vector<void*> domains;
  return voxrill::guarded("", [&] {
    while (domains.size() < std::size(kDomains)) {
      const auto& [name, op] = kDomains[domains.size()];
      void* made = nullptr;
      voxrill::ask(ort::kCreateCustomOpDomain, name, &made);
      voxrill::ask(ort::kCustomOpDomainAdd, made, op);
      domains.push_back(made);
    }
    for (void* domain : domains) voxrill::ask(ort::kAddCustomOpDomain, options, domain);
  });
}

// The instruction sets that run here, best first, separated by spaces.
VOXRILL_EXPORT const char* voxrill_kernels_sets() {
  static const std::string names = [] {
    std::string all;
    for (const voxrill::Kernels* kernels : kAll)
      if (kernels->runs_here()) all += (all.empty() ? "" : " ") + std::string(kernels->name);
    return all;
  }();
  return names.c_str();
}

// Use an instruction set from now on, in the whole process. 0 if it is not one of those that run here.
VOXRILL_EXPORT int voxrill_kernels_choose(const char* name) {
  for (const voxrill::Kernels* kernels : kAll)
    if (kernels->runs_here() && !std::strcmp(kernels->name, name)) return voxrill::chosen = kernels, 1;
  return 0;
}

// Weights that are packed now, times that a second graph found one, bytes of their values, and of those on huge pages.
VOXRILL_EXPORT void voxrill_kernels_statistics(int64_t out[4]) {
  const voxrill::Statistics found = voxrill::statistics();
  out[0] = found.weights;
  out[1] = found.shared;
  out[2] = found.bytes;
  out[3] = found.huge_bytes;
}

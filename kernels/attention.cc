// The operator GroupQueryAttention of the domain voxrill.attention: attention with a KV cache of 8 bits, which it writes.
#include "attention.h"

#include <cstring>

#include "host.h"
#include "products.h"

namespace voxrill {
namespace {

constexpr int64_t kPieces = 32;        // stretches of all heads together: more than threads, so that none waits long
constexpr int64_t kShortest = 4;       // tiles of a stretch
constexpr int64_t kFewRows = 64;       // more rows of a head keep threads busy without stretches
constexpr int64_t kAlone = 64;         // so few positions the calling thread attends to alone

int64_t divided(int64_t a, int64_t b) { return (a + b - 1) / b; }

void begin_head(void* user, size_t head) { kernels().begin(*static_cast<const Attention*>(user), head); }
void finish_head(void* user, size_t head) { kernels().finish(*static_cast<const Attention*>(user), head); }
void attend_piece(void* user, size_t piece) {
  const Attention& work = *static_cast<const Attention*>(user);
  kernels().attend(work, piece / work.stretches, piece % work.stretches);
}

void for_all(void* context, Attention& work, int64_t count, bool alone, void (*one)(void*, size_t)) {
  if (!alone)
    return ask(ort::kParallelFor, static_cast<const void*>(context), one, static_cast<size_t>(count),
               static_cast<size_t>(count), static_cast<void*>(&work));
  for (int64_t i = 0; i < count; i++) one(&work, i);
}

// The calling thread's buffers for what the parts hand on.
void take_buffers(Attention& work) {
  thread_local std::vector<float> buffer;
  const size_t rows = work.kv_heads * work.rows(), parts = rows * work.stretches, rounded = rows * work.width / 2 + 1;
  const size_t floats = rounded + rows + parts * (2 + work.width);
  if (buffer.size() < floats) buffer.resize(floats);
  float* at = buffer.data();
  work.rounded = reinterpret_cast<int16_t*>(at);
  work.units = at += rounded;
  work.tops = reinterpret_cast<int32_t*>(at += rows);
  work.sums = at += parts;
  work.mixed = at + parts;
}

void run(void* context, Attention& work) {
  const int64_t tiles = divided(work.total, kTile), most = divided(kPieces, work.kv_heads);
  const int64_t wanted = work.rows() > kFewRows ? 1 : tiles / kShortest < most ? tiles / kShortest : most;
  work.stretch = divided(tiles, wanted < 1 ? 1 : wanted);
  work.stretches = divided(tiles, work.stretch);
  take_buffers(work);
  const bool few = work.rows() <= kFewRows;
  for_all(context, work, work.kv_heads, few, begin_head);
  for_all(context, work, work.kv_heads * work.stretches, few && work.total <= kAlone, attend_piece);
  for_all(context, work, work.kv_heads, few, finish_head);
}

struct Attending {
  static constexpr const char* kName = "GroupQueryAttention";
  // query, key, value, past keys and values, last position, number of positions, scales of keys and of values
  static constexpr int kInputs[] = {ort::kFloat32, ort::kFloat32, ort::kFloat32, ort::kInt8, ort::kInt8,
                                    ort::kInt32,   ort::kInt32,   ort::kFloat32, ort::kFloat32};
  static constexpr int kOutputs[] = {ort::kFloat32, ort::kInt8, ort::kInt8};
  static constexpr size_t kNeeded = 9;

  int64_t heads, kv_heads;

  explicit Attending(const void* info) : heads(attribute(info, "num_heads")), kv_heads(attribute(info, "kv_num_heads")) {
    const int64_t most = 1 << 12;
    if (kv_heads < 1 || heads < kv_heads || heads > most || heads % kv_heads)
      refuse("num_heads must be a multiple of kv_num_heads, and at most 4096");
  }

  void compute(void* context) const {
    Tensor inputs[9];
    for (size_t i = 0; i < 9; i++) {
      const void* value = nullptr;
      ask(ort::kGetInput, static_cast<const void*>(context), i, &value);
      if (!value) refuse("an input is missing");
      inputs[i] = tensor_of(value);
    }
    Attention work = described(inputs);
    void* outputs[3];
    const std::vector<int64_t> cache = {1, kv_heads, work.capacity, work.width};
    for (size_t i = 0; i < 3; i++) {
      const std::vector<int64_t>& dims = i ? cache : inputs[0].dims;
      void* made = nullptr;
      ask(ort::kGetOutput, context, i, static_cast<const int64_t*>(dims.data()), dims.size(), &made);
      ask(ort::kGetTensorMutableData, made, &outputs[i]);
    }
    if (!work.positions) refuse("there are no new positions");
    work.out = static_cast<float*>(outputs[0]);
    work.keys = static_cast<int8_t*>(outputs[1]);
    work.values = static_cast<int8_t*>(outputs[2]);
    // A decoder reads and writes one buffer; only other callers need a copy.
    for (int i = 1; i < 3; i++)
      if (outputs[i] != inputs[2 + i].data) std::memcpy(outputs[i], inputs[2 + i].data, inputs[2 + i].count());
    run(context, work);
  }

  // Sizes and inputs, which are what the attributes say.
  Attention described(const Tensor* inputs) const {
    Attention work{};
    const std::vector<int64_t>&query = inputs[0].dims, &cache = inputs[3].dims;
    const int64_t most = int64_t{1} << 30;
    if (query.size() != 3 || query[0] != 1 || query[1] < 0 || query[1] > most || query[2] < 1 || query[2] % heads)
      refuse("query must be (1, positions, num_heads * width)");
    work.group = heads / kv_heads;
    work.kv_heads = kv_heads;
    work.width = query[2] / heads;
    work.positions = query[1];
    if (work.width > kLargestWidth) refuse("heads wider than 256 are not known here");
    if (cache.size() != 4 || cache[0] != 1 || cache[1] != kv_heads || cache[2] < 0 || cache[2] > most ||
        cache[3] != work.width)
      refuse("the cache must be (1, kv_num_heads, capacity, width)");
    work.capacity = cache[2];
    const int64_t wide = kv_heads * work.width, held = wide * work.capacity;
    expect(inputs[0], "query", ort::kFloat32, work.positions * heads * work.width);
    expect(inputs[1], "key", ort::kFloat32, work.positions * wide);
    expect(inputs[2], "value", ort::kFloat32, work.positions * wide);
    expect(inputs[3], "past_key", ort::kInt8, held);
    expect(inputs[4], "past_value", ort::kInt8, held);
    expect(inputs[5], "last", ort::kInt32, 1);
    expect(inputs[6], "total", ort::kInt32, 1);
    expect(inputs[7], "key_scales", ort::kFloat32, wide);
    expect(inputs[8], "value_scales", ort::kFloat32, wide);
    int32_t last, total;
    std::memcpy(&last, inputs[5].data, 4);
    std::memcpy(&total, inputs[6].data, 4);
    work.total = total;
    if (total < work.positions || total > work.capacity || last != total - 1)
      refuse("total must be the number of all positions, last one less, and the cache must have room for them");
    work.query = static_cast<const float*>(inputs[0].data);
    work.key = static_cast<const float*>(inputs[1].data);
    work.value = static_cast<const float*>(inputs[2].data);
    work.key_scales = static_cast<const float*>(inputs[7].data);
    work.value_scales = static_cast<const float*>(inputs[8].data);
    return work;
  }
};

}  // namespace

ort::CustomOp attention() { return make_operator<Attending>(); }

}  // namespace voxrill

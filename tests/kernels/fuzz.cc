// Malformed tensors against the operators, with a false onnxruntime around them. Built with AddressSanitizer: every tensor
// has exactly its bytes on the heap, so that a read or write beyond them ends the program.
//
//   fuzz SEED COUNT
//
// Prints how many products and attentions ran, and how many were refused.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "ort_abi.h"

using namespace voxrill;

extern "C" void* RegisterCustomOps(void* options, const ort::ApiBase* base);
extern "C" int voxrill_kernels_choose(const char* name);
extern "C" const char* voxrill_kernels_sets();

namespace {

std::mt19937 random_source;
int64_t pick(std::initializer_list<int64_t> of) { return of.begin()[random_source() % of.size()]; }

struct Value {  // a tensor of onnxruntime's
  int type = 0;
  std::vector<int64_t> dims;
  std::unique_ptr<char[]> memory;
  size_t shift = 0;  // a misaligned tensor begins here
  bool absent = false;
  void* data() const { return absent ? nullptr : memory.get() + shift; }
};

struct Info {  // what a kernel is made from
  std::map<std::string, int64_t> attributes;
  std::vector<Value> inputs;
};

struct Context {  // what a kernel runs with
  std::vector<Value> inputs;
  Value outputs[3];
  bool in_place = false;  // the attention's caches are written where they are read
};

std::map<std::string, const ort::CustomOp*> operators;

// The functions that the operator calls, as onnxruntime has them. A status is a string on the heap.
void* status(const char* text) { return new std::string(text); }
void* create_status(int, const char* text) { return status(text); }
void* create_domain(const char*, void** out) { return *out = &random_source, nullptr; }
void* domain_add(void*, const ort::CustomOp* op) { return operators[op->get_name(op)] = op, nullptr; }
void* add_domain(void*, void*) { return nullptr; }
void* data_of(Value* value, void** out) { return *out = value->data(), nullptr; }
void* shape_of(const Value* value, const Value** out) { return *out = value, nullptr; }
void* type_of(const Value* value, int* out) { return *out = value->type, nullptr; }
void* rank_of(const Value* value, size_t* out) { return *out = value->dims.size(), nullptr; }
void* dims_of(const Value* value, int64_t* out, size_t count) {
  for (size_t i = 0; i < count; i++) out[i] = value->dims[i];
  return nullptr;
}
void release_shape(const Value*) {}
void* attribute(const Info* info, const char* name, int64_t* out) {
  const auto found = info->attributes.find(name);
  if (found == info->attributes.end()) return status("no such attribute");
  return *out = found->second, nullptr;
}
void* input_count(const Info* info, size_t* out) { return *out = info->inputs.size() + 1, nullptr; }
void* input_name(const Info* info, size_t index, char*, size_t* length) {
  if (index > info->inputs.size()) return status("no such input");
  return *length = index && info->inputs[index - 1].dims.empty() ? 1 : 5, nullptr;
}
void* constant(const Info* info, size_t index, int* is, const Value** out) {
  if (index > info->inputs.size()) return status("no such input");
  *out = &info->inputs[index - 1];
  return *is = random_source() % 50 != 0, nullptr;
}
void* input(Context* context, size_t index, const Value** out) {
  return *out = index < context->inputs.size() ? &context->inputs[index] : nullptr, nullptr;
}

size_t size_of(int type) { return type == ort::kFloat32 || type == ort::kInt32 ? 4 : type == ort::kFloat16 ? 2 : 1; }

Value tensor(int type, std::vector<int64_t> dims) {
  Value value;
  value.type = type;
  size_t count = 1;
  for (const int64_t dim : dims) count *= dim < 0 ? 0 : dim;
  value.dims = std::move(dims);
  value.shift = random_source() % 8 ? 0 : random_source() % 4;
  const size_t bytes = count * size_of(type) + value.shift;
  value.memory.reset(new char[bytes]);
  for (size_t i = 0; i < bytes; i++) value.memory[i] = static_cast<char>(random_source());  // NaN and infinity, too
  return value;
}

void* output(Context* context, size_t index, const int64_t* dims, size_t rank, Value** out) {
  if (index && context->in_place) return *out = &context->inputs[2 + index], nullptr;
  context->outputs[index] = tensor(index ? ort::kInt8 : ort::kFloat32, {dims, dims + rank});
  return *out = &context->outputs[index], nullptr;
}
void* parallel_for(const void*, void (*work)(void*, size_t), size_t total, size_t, void* user) {
  for (size_t i = total; i--;) work(user, i);
  return nullptr;
}

const void* table[300];
const void* const* get_api(uint32_t) { return table; }

void fill_table() {
  const std::pair<int, void*> functions[] = {
      {ort::kCreateStatus, (void*)create_status},
      {ort::kCreateCustomOpDomain, (void*)create_domain},
      {ort::kCustomOpDomainAdd, (void*)domain_add},
      {ort::kAddCustomOpDomain, (void*)add_domain},
      {ort::kGetTensorMutableData, (void*)data_of},
      {ort::kGetTensorElementType, (void*)type_of},
      {ort::kGetDimensionsCount, (void*)rank_of},
      {ort::kGetDimensions, (void*)dims_of},
      {ort::kGetTensorTypeAndShape, (void*)shape_of},
      {ort::kGetAttributeInt64, (void*)attribute},
      {ort::kGetInput, (void*)input},
      {ort::kGetOutput, (void*)output},
      {ort::kReleaseTensorTypeAndShape, (void*)release_shape},
      {ort::kGetInputCount, (void*)input_count},
      {ort::kGetInputName, (void*)input_name},
      {ort::kGetConstantInput, (void*)constant},
      {ort::kParallelFor, (void*)parallel_for},
  };
  for (const auto& [index, function] : functions) table[index] = function;
}

// Now and then a number that does not belong here.
int64_t spoilt(int64_t number) {
  switch (random_source() % 60) {
    case 0: return number - 1;
    case 1: return number + 1;
    case 2: return 0;
    case 3: return number * 2;
    default: return number;
  }
}

Info random_info() {
  Info info;
  const int64_t bits = pick({2, 3, 4, 8}), block = pick({32, 64, 128, 256});
  const int64_t columns = 1 + random_source() % 600, rows = 1 + random_source() % 70;
  const int64_t blocks = (columns + block - 1) / block;
  info.attributes = {{"K", spoilt(columns)}, {"N", spoilt(rows)}, {"bits", spoilt(bits)}, {"block_size", spoilt(block)}};
  if (random_source() % 100 == 0) info.attributes["K"] = pick({-1, INT64_MAX, INT64_MIN, int64_t{1} << 40});
  if (random_source() % 100 == 0) info.attributes["N"] = pick({-1, INT64_MAX, INT64_MIN, int64_t{1} << 30});
  if (random_source() % 100 == 0) info.attributes.erase("bits");
  const int scale_type = random_source() % 2 ? ort::kFloat32 : ort::kFloat16;
  info.inputs.push_back(tensor(random_source() % 60 ? int{ort::kUint8} : 3, {spoilt(rows), blocks, block / 8 * bits}));
  info.inputs.push_back(tensor(random_source() % 60 ? scale_type : 2, {spoilt(rows * blocks)}));
  const int64_t points = bits == 3 ? blocks : (blocks * bits + 7) / 8;
  if (random_source() % 2) info.inputs.push_back(tensor(ort::kUint8, {rows, spoilt(points)}));
  if (random_source() % 3 == 0) {
    if (info.inputs.size() == 2) info.inputs.push_back(tensor(ort::kUint8, {}));  // no zero points
    info.inputs.push_back(tensor(ort::kInt32, std::vector<int64_t>(random_source() % 30 == 0, columns)));  // g_idx
    info.inputs.push_back(tensor(random_source() % 60 ? int{ort::kFloat32} : 2, {spoilt(rows)}));  // bias
  }
  if (random_source() % 60 == 0) info.inputs[random_source() % info.inputs.size()].dims.push_back(pick({-1, INT64_MAX, 1}));
  if (random_source() % 60 == 0) info.inputs[random_source() % info.inputs.size()].absent = true;
  return info;
}

bool refused(void* given) {
  delete static_cast<std::string*>(given);
  return given;
}

// One kernel is made, runs once, and goes.
bool runs(const char* name, const Info& info, Context context) {
  const ort::CustomOp* op = operators.at(name);
  void* kernel = nullptr;
  if (refused(op->create_kernel_v2(op, table, &info, &kernel))) return false;
  const bool failed = refused(op->compute_v2(kernel, &context));
  op->destroy(kernel);
  return !failed;
}

bool product_runs() {
  const Info info = random_info();
  Context context;
  const int64_t columns = std::clamp<int64_t>(info.attributes.at("K"), -1, 1 << 12);  // others are refused before it runs
  context.inputs.push_back(tensor(ort::kFloat32, {spoilt(pick({0, 1, 2, 5, 13, 250})), spoilt(columns)}));
  if (random_source() % 40 == 0) context.inputs[0].dims.clear();
  return runs("MatMulNBits", info, std::move(context));
}

// Exponents near 1, so that more than NaN and zero comes out.
void tame(Value& value) {
  uint32_t bits;
  for (int64_t i = 0; i < value.dims.back() * value.dims.front(); i++) {
    char* at = static_cast<char*>(value.data()) + 4 * i;
    std::memcpy(&bits, at, 4);
    bits = (bits & 0x807fffff) | 0x3f800000;
    std::memcpy(at, &bits, 4);
  }
}

Value number(int64_t value) {
  Value made = tensor(ort::kInt32, {1});
  const auto narrow = static_cast<int32_t>(value);
  std::memcpy(made.data(), &narrow, 4);
  return made;
}

bool attention_runs() {
  const int64_t kv_heads = pick({1, 2, 3}), heads = kv_heads * pick({1, 2, 4, 5}), width = pick({8, 7, 16, 32, 48, 64, 256});
  const int64_t positions = pick({1, 1, 1, 2, 7, 30}), total = positions + pick({0, 3, 127, 130, 500});
  const int64_t capacity = total + pick({0, 1, 5});
  Info info;
  info.attributes = {{"num_heads", spoilt(heads)}, {"kv_num_heads", spoilt(kv_heads)}};
  if (random_source() % 50 == 0) info.attributes["num_heads"] = pick({-1, INT64_MAX, INT64_MIN, int64_t{1} << 30});
  if (random_source() % 50 == 0) info.attributes["kv_num_heads"] = pick({-1, INT64_MAX, INT64_MIN});
  Context context;
  std::vector<Value>& inputs = context.inputs;
  inputs.push_back(tensor(ort::kFloat32, {1, positions, spoilt(heads * width)}));
  for (int i = 0; i < 2; i++) inputs.push_back(tensor(ort::kFloat32, {spoilt(positions), kv_heads * width}));
  for (int i = 0; i < 2; i++) inputs.push_back(tensor(ort::kInt8, {1, kv_heads, spoilt(capacity), width}));
  inputs.push_back(number(spoilt(total) - 1));
  inputs.push_back(number(random_source() % 60 ? total : pick({-1, 0, INT32_MAX, INT32_MIN, capacity + 1})));
  for (int i = 0; i < 2; i++) inputs.push_back(tensor(ort::kFloat32, {kv_heads, spoilt(width)}));
  if (random_source() % 4)
    for (const int i : {7, 8}) tame(inputs[i]);
  context.in_place = random_source() % 2;
  Value& odd = inputs[random_source() % inputs.size()];
  switch (random_source() % 40) {
    case 0: odd.dims.push_back(pick({-1, INT64_MAX, 1})); break;
    case 1: odd.dims.clear(); break;
    case 2: odd.absent = true; break;
    case 3: odd.type = pick({ort::kFloat16, ort::kUint8, 7}); break;
    case 4: odd.dims[0] = pick({-1, 0, 2, INT64_MAX}); break;
    case 5: inputs.resize(random_source() % inputs.size()); break;
  }
  return runs("GroupQueryAttention", info, std::move(context));
}

void report(const char* what, int ran, int count) { std::printf("%s: %d ran, %d refused\n", what, ran, count - ran); }

}  // namespace

int main(int, char** arguments) {
  random_source.seed(std::atoi(arguments[1]));
  fill_table();
  const ort::ApiBase base{get_api, nullptr};
  if (RegisterCustomOps(nullptr, &base)) return 1;
  std::vector<std::string> sets;
  for (char* name = std::strtok(strdup(voxrill_kernels_sets()), " "); name; name = std::strtok(nullptr, " "))
    sets.push_back(name);
  int products = 0, attentions = 0, count = std::atoi(arguments[2]);
  for (int i = 0; i < count; i++) {
    voxrill_kernels_choose(sets[random_source() % sets.size()].c_str());
    products += product_runs();
    attentions += attention_runs();
  }
  report("products", products, count);
  report("attentions", attentions, count);
}

// The part of onnxruntime's C interface that the operators use, declared here so that the build needs no header of
// onnxruntime. The table of functions is append-only: a function's index never changes.
#pragma once
#include <cstddef>
#include <cstdint>

namespace voxrill::ort {

constexpr uint32_t kApiVersion = 18;  // onnxruntime 1.18; ParallelFor came with version 17

enum Function {
  kCreateStatus = 0,
  kCreateCustomOpDomain = 26,
  kCustomOpDomainAdd = 27,
  kAddCustomOpDomain = 28,
  kGetTensorMutableData = 51,
  kGetTensorElementType = 60,
  kGetDimensionsCount = 61,
  kGetDimensions = 62,
  kGetTensorTypeAndShape = 65,
  kGetAttributeInt64 = 86,
  kGetInput = 90,
  kGetOutput = 91,
  kReleaseStatus = 93,
  kReleaseTensorTypeAndShape = 99,
  kGetInputCount = 230,
  kGetInputName = 232,
  kGetConstantInput = 249,
  kParallelFor = 274,
};

enum ElementType { kAny = 0, kFloat32 = 1, kUint8 = 2, kInt8 = 3, kInt32 = 6, kFloat16 = 10 };
enum Code { kFail = 1, kInvalidArgument = 2 };
enum Characteristic { kRequired = 0, kOptional = 1 };

using Status = void*;  // null: success

struct ApiBase {
  const void* const* (*get_api)(uint32_t version);
  const char* (*get_version)();
};

// OrtCustomOp of version 18. Fields keep the order of onnxruntime's header.
struct CustomOp {
  uint32_t version;
  void* (*create_kernel)(const CustomOp*, const void* api, const void* info);
  const char* (*get_name)(const CustomOp*);
  const char* (*get_provider)(const CustomOp*);
  int (*get_input_type)(const CustomOp*, size_t);
  size_t (*get_input_count)(const CustomOp*);
  int (*get_output_type)(const CustomOp*, size_t);
  size_t (*get_output_count)(const CustomOp*);
  void (*compute)(void* kernel, void* context);
  void (*destroy)(void* kernel);
  int (*get_input_characteristic)(const CustomOp*, size_t);
  int (*get_output_characteristic)(const CustomOp*, size_t);
  int (*get_input_memory)(const CustomOp*, size_t);
  int (*get_variadic_input_least)(const CustomOp*);
  int (*get_variadic_input_same)(const CustomOp*);
  int (*get_variadic_output_least)(const CustomOp*);
  int (*get_variadic_output_same)(const CustomOp*);
  Status (*create_kernel_v2)(const CustomOp*, const void* api, const void* info, void** kernel);
  Status (*compute_v2)(void* kernel, void* context);
  Status (*infer_shape)(const CustomOp*, void*);
  int (*get_start_version)(const CustomOp*);
  int (*get_end_version)(const CustomOp*);
  size_t (*get_may_inplace)(int**, int**);
  void (*release_may_inplace)(int*, int*);
  size_t (*get_alias)(int**, int**);
  void (*release_alias)(int*, int*);
};

extern const void* const* api;  // set by RegisterCustomOps

template <class Result, class... Arguments>
Result call(Function function, Arguments... arguments) {
  using Pointer = Result (*)(Arguments...);
  return reinterpret_cast<Pointer>(const_cast<void*>(api[function]))(arguments...);
}

}  // namespace voxrill::ort

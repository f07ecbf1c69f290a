// What the operators ask of onnxruntime: inputs and attributes, errors as statuses, and the operator's own description.
#pragma once
#include <exception>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "ort_abi.h"

namespace voxrill {
namespace {

using ort::Status;

// Errors of ours and of onnxruntime, on the way to a status. No exception crosses the C interface.
struct Refusal {
  std::string message;
};
struct Failure {
  Status status;
};

[[noreturn]] inline void refuse(const std::string& message) { throw Refusal{message}; }

template <class... Arguments>
void ask(ort::Function function, Arguments... arguments) {
  if (const Status status = ort::call<Status>(function, arguments...)) throw Failure{status};
}

// Does the work of the operator `name`; its error as a status, or null.
template <class Work>
Status guarded(const char* name, Work work) {
  try {
    work();
    return nullptr;
  } catch (const Refusal& refusal) {
    const std::string whole = "voxrill::" + std::string(name) + ": " + refusal.message;
    return ort::call<Status>(ort::kCreateStatus, int{ort::kInvalidArgument}, whole.c_str());
  } catch (const Failure& failure) {
    return failure.status;
  } catch (const std::exception& error) {
    return ort::call<Status>(ort::kCreateStatus, int{ort::kFail}, error.what());
  }
}

inline int64_t attribute(const void* info, const char* name) {
  int64_t value = 0;
  ask(ort::kGetAttributeInt64, info, name, &value);
  return value;
}

struct Tensor {
  int type = 0;
  std::vector<int64_t> dims;
  void* data = nullptr;

  // Elements, or -1 if they are more than 2^62 or a dimension is negative.
  int64_t count() const {
    int64_t count = 1;
    for (const int64_t dim : dims) {
      if (dim < 0 || (dim && count > (int64_t{1} << 62) / dim)) return -1;
      count *= dim;
    }
    return count;
  }
};

inline void release_shape(void* shape) { ort::call<void>(ort::kReleaseTensorTypeAndShape, shape); }

inline Tensor tensor_of(const void* value) {
  Tensor tensor;
  void* made = nullptr;
  size_t rank = 0;
  ask(ort::kGetTensorTypeAndShape, value, &made);
  const std::unique_ptr<void, void (*)(void*)> shape(made, release_shape);
  ask(ort::kGetTensorElementType, static_cast<const void*>(made), &tensor.type);
  ask(ort::kGetDimensionsCount, static_cast<const void*>(made), &rank);
  tensor.dims.resize(rank);
  ask(ort::kGetDimensions, static_cast<const void*>(made), tensor.dims.data(), rank);
  ask(ort::kGetTensorMutableData, const_cast<void*>(value), &tensor.data);
  return tensor;
}

inline Tensor constant(const void* info, size_t index, const char* name) {
  int is_constant = 0;
  const void* value = nullptr;
  ask(ort::kGetConstantInput, info, index, &is_constant, &value);
  if (!is_constant || !value) refuse(std::string(name) + " must be an initializer");
  return tensor_of(value);
}

inline void expect(const Tensor& tensor, const char* name, int type, int64_t count) {
  if (tensor.type != type) refuse(std::string(name) + " has an element type that is not known here");
  if (tensor.count() != count || (count && !tensor.data))
    refuse(std::string(name) + " has " + std::to_string(tensor.count()) + " elements instead of " + std::to_string(count));
}

// Optional inputs that are left out have an empty name, or none: those after the last that is given.
inline bool has_input(const void* info, size_t index) {
  size_t count = 0, length = 0;
  ask(ort::kGetInputCount, info, &count);
  if (index >= count) return false;
  ask(ort::kGetInputName, info, index, static_cast<char*>(nullptr), &length);
  return length > 1;  // with the zero at the end
}

// An operator whose kernels are `Kernel`: made of a node's description, and run by `compute`. Its name is in `kName`, its
// inputs' types are in `kInputs`, of which the first `kNeeded` are required, and its outputs' types in `kOutputs`.
template <class Kernel>
ort::CustomOp make_operator() {
  using Op = ort::CustomOp;
  Op op{};
  const auto none = [](const Op*) { return 0; };
  const auto usual = [](const Op*, size_t) { return 0; };
  op.version = ort::kApiVersion;
  op.get_name = [](const Op*) { return Kernel::kName; };
  op.get_provider = [](const Op*) -> const char* { return nullptr; };  // the CPU
  op.get_input_type = [](const Op*, size_t index) { return Kernel::kInputs[index]; };
  op.get_input_count = [](const Op*) { return std::size(Kernel::kInputs); };
  op.get_output_type = [](const Op*, size_t index) { return Kernel::kOutputs[index]; };
  op.get_output_count = [](const Op*) { return std::size(Kernel::kOutputs); };
  op.destroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  op.get_input_characteristic = [](const Op*, size_t index) -> int {
    return index < Kernel::kNeeded ? ort::kRequired : ort::kOptional;
  };
  op.get_output_characteristic = op.get_input_memory = usual;
  op.get_variadic_input_least = op.get_variadic_input_same = none;
  op.get_variadic_output_least = op.get_variadic_output_same = none;
  op.create_kernel_v2 = [](const Op*, const void*, const void* info, void** kernel) {
    return guarded(Kernel::kName, [=] { *kernel = new Kernel(info); });
  };
  op.compute_v2 = [](void* kernel, void* context) {
    return guarded(Kernel::kName, [=] { static_cast<const Kernel*>(kernel)->compute(context); });
  };
  op.get_start_version = [](const Op*) { return 1; };
  op.get_end_version = [](const Op*) { return 0x7fffffff; };
  return op;
}

}  // namespace
}  // namespace voxrill

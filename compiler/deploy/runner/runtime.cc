#include "runtime.h"

#include <cstring>

#include "dynamic.h"
#include "failure.h"

namespace vitq {
namespace {

constexpr const char* kFfi = "lib/libtvm_ffi.so";
constexpr const char* kRuntime = "lib/libtvm_runtime.so";
constexpr const char* kCuda = "lib/libtvm_runtime_cuda.so";

// Of a bundle for GPUs.
void open_cuda(const Manifest& manifest) {
  check_files(manifest, {kCuda});
  try {
    open_library(manifest.path_of(kCuda), RTLD_GLOBAL);
  } catch (const Failure& failure) {
    throw Failure(std::string(failure.what()) +
                  " (needed: NVIDIA's driver, and CUDA 13's libcudart.so.13)");
  }
}

TVMFFIByteArray bytes_of(const char* text) { return {text, std::strlen(text)}; }

}  // namespace

std::vector<std::string> runtime_files() { return {kFfi, kRuntime}; }

TVMFFIAny none() {
  TVMFFIAny value;
  std::memset(&value, 0, sizeof value);
  return value;
}

TVMFFIAny of_object(TVMFFIObjectHandle object, int32_t kind) {
  TVMFFIAny value = none();
  value.type_index = kind;
  value.v_obj = static_cast<TVMFFIObject*>(object);
  return value;
}

TVMFFIAny of_text(const char* text) {
  TVMFFIAny value = none();
  value.type_index = kTVMFFIRawStr;
  value.v_c_str = text;
  return value;
}

TVMFFIAny of_integer(int64_t number, int32_t kind) {
  TVMFFIAny value = none();
  value.type_index = kind;
  value.v_int64 = number;
  return value;
}

TVMFFIAny of_number(double number) {
  TVMFFIAny value = none();
  value.type_index = kTVMFFIFloat;
  value.v_float64 = number;
  return value;
}

TVMFFIAny of_address(void* address) {
  TVMFFIAny value = none();
  value.type_index = kTVMFFIOpaquePtr;
  value.v_ptr = address;
  return value;
}

std::string text_of(const TVMFFIAny& value) {
  if (value.type_index == kTVMFFIRawStr) return value.v_c_str;
  TVMFFIByteArray bytes{nullptr, 0};
  if (value.type_index == kTVMFFISmallStr) bytes = TVMFFISmallBytesGetContentByteArray(&value);
  else if (value.type_index == kTVMFFIStr) bytes = *TVMFFIBytesGetByteArrayPtr(value.v_obj);
  else throw Failure("an argument is no text");
  return std::string(bytes.data, bytes.size);
}

int64_t integer_of(const TVMFFIAny& value) {
  if (value.type_index != kTVMFFIInt) throw Failure("an argument is no integer");
  return value.v_int64;
}

double number_of(const TVMFFIAny& value) {
  if (value.type_index != kTVMFFIFloat) throw Failure("an argument is no number");
  return value.v_float64;
}

DLTensor* tensor_of(const TVMFFIAny& value) {
  if (value.type_index == kTVMFFIDLTensorPtr) return static_cast<DLTensor*>(value.v_ptr);
  if (value.type_index == kTVMFFITensor) return TVMFFITensorGetDLTensorPtr(value.v_obj);
  throw Failure("an argument is no tensor");
}

Runtime::Runtime(const Manifest& manifest) {
  void* ffi = open_library(manifest.path_of(kFfi), RTLD_GLOBAL);
  open_library(manifest.path_of(kRuntime), RTLD_GLOBAL);
  on_gpu_ = manifest.lists(kCuda);
  if (on_gpu_) open_cuda(manifest);
  find_symbol(ffi, "TVMFFIFunctionGetGlobal", &api_.get_global);
  find_symbol(ffi, "TVMFFIFunctionSetGlobal", &api_.set_global);
  find_symbol(ffi, "TVMFFIFunctionCreate", &api_.create);
  find_symbol(ffi, "TVMFFIFunctionCall", &api_.call);
  find_symbol(ffi, "TVMFFIObjectDecRef", &api_.release);
  find_symbol(ffi, "TVMFFITensorFromDLPack", &api_.from_dlpack);
  find_symbol(ffi, "TVMFFIStringFromByteArray", &api_.string);
  find_symbol(ffi, "TVMFFIErrorMoveFromRaised", &api_.raised);
  find_symbol(ffi, "TVMFFIErrorSetRaisedFromCStr", &api_.raise);
}

TVMFFIObjectHandle Runtime::global(const char* name) const {
  const TVMFFIByteArray key = bytes_of(name);
  TVMFFIObjectHandle function = nullptr;
  if (api_.get_global(&key, &function) != 0 || !function) {
    throw Failure(std::string("the runtime has no function ") + name);
  }
  return function;
}

TVMFFIObjectHandle Runtime::method(const TVMFFIAny& module, const char* name) const {
  if (module.type_index != kTVMFFIModule) throw Failure("the library holds no module");
  const TVMFFIAny found = call(global("ffi.ModuleGetFunction"),
                               {module, of_text(name), of_integer(1, kTVMFFIBool)});
  if (found.type_index != kTVMFFIFunction) {
    throw Failure(std::string("the library has no function ") + name);
  }
  return found.v_obj;
}

TVMFFIAny Runtime::load_module(const std::string& path) const {
  return call(global("ffi.ModuleLoadFromFile"), {of_text(path.c_str())});
}

TVMFFIAny Runtime::call(TVMFFIObjectHandle function, const std::vector<TVMFFIAny>& args) const {
  TVMFFIAny result = none();
  auto* values = const_cast<TVMFFIAny*>(args.data());  // only moved from where one says so
  if (api_.call(function, values, static_cast<int32_t>(args.size()), &result) != 0) {
    throw Failure("the runtime failed: " + raised_message());
  }
  return result;
}

TVMFFIObjectHandle Runtime::tensor(DLManagedTensor* managed) const {
  TVMFFIObjectHandle tensor = nullptr;
  if (api_.from_dlpack(managed, 0, 0, &tensor) != 0) {
    throw Failure("the runtime failed: " + raised_message());
  }
  return tensor;
}

TVMFFIAny Runtime::owned_text(const std::string& text) const {
  const TVMFFIByteArray bytes{text.data(), text.size()};
  TVMFFIAny value = none();
  if (api_.string(&bytes, &value) != 0) throw Failure("the runtime failed: " + raised_message());
  return value;
}

void Runtime::define(const char* name, TVMFFISafeCallType function, void* self) const {
  const TVMFFIByteArray key = bytes_of(name);
  TVMFFIObjectHandle handle = nullptr;
  if (api_.create(self, function, nullptr, &handle) != 0 || api_.set_global(&key, handle, 1) != 0) {
    throw Failure("the runtime failed: " + raised_message());
  }
  api_.release(handle);
}

int Runtime::fail(const std::string& message) const {
  api_.raise("RuntimeError", message.c_str());
  return -1;
}

std::string Runtime::raised_message() const {
  TVMFFIObjectHandle error = nullptr;
  api_.raised(&error);
  if (!error) return "unknown reason";
  const TVMFFIByteArray& message = TVMFFIErrorGetCellPtr(error)->message;
  const std::string text(message.data, message.size);
  api_.release(error);
  return text.substr(0, text.find('\n'));
}

}  // namespace vitq

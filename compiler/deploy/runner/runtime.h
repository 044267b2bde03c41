// TVM's runtime, loaded from the bundle and used through the C interface of libtvm_ffi.
#ifndef VITQ_RUNTIME_H_
#define VITQ_RUNTIME_H_

#include <cstdint>
#include <string>
#include <vector>

#include "manifest.h"
#include "tvm/ffi/c_api.h"

namespace vitq {

std::vector<std::string> runtime_files();

TVMFFIAny none();
TVMFFIAny of_object(TVMFFIObjectHandle object, int32_t kind);
TVMFFIAny of_text(const char* text);  // not owned
TVMFFIAny of_integer(int64_t number, int32_t kind = kTVMFFIInt);
TVMFFIAny of_number(double number);
TVMFFIAny of_address(void* address);

// Each throws Failure where the value is of another kind.
std::string text_of(const TVMFFIAny& value);
int64_t integer_of(const TVMFFIAny& value);
double number_of(const TVMFFIAny& value);
DLTensor* tensor_of(const TVMFFIAny& value);

class Runtime {
 public:
  // Loads checked libraries. Throws Failure, as all that follows.
  explicit Runtime(const Manifest& manifest);
  bool on_gpu() const { return on_gpu_; }

  TVMFFIObjectHandle global(const char* name) const;
  TVMFFIObjectHandle method(const TVMFFIAny& module, const char* name) const;
  TVMFFIAny load_module(const std::string& path) const;
  TVMFFIAny call(TVMFFIObjectHandle function, const std::vector<TVMFFIAny>& args) const;
  TVMFFIObjectHandle tensor(DLManagedTensor* managed) const;
  TVMFFIAny owned_text(const std::string& text) const;
  void release(TVMFFIObjectHandle object) const { api_.release(object); }
  // A global function; `self` must outlive the process's use of it.
  void define(const char* name, TVMFFISafeCallType function, void* self) const;
  // The answer of a defined function that failed.
  int fail(const std::string& message) const;

 private:
  std::string raised_message() const;

  struct Api {
    decltype(TVMFFIFunctionGetGlobal)* get_global;
    decltype(TVMFFIFunctionSetGlobal)* set_global;
    decltype(TVMFFIFunctionCreate)* create;
    decltype(TVMFFIFunctionCall)* call;
    decltype(TVMFFIObjectDecRef)* release;
    decltype(TVMFFITensorFromDLPack)* from_dlpack;
    decltype(TVMFFIStringFromByteArray)* string;
    decltype(TVMFFIErrorMoveFromRaised)* raised;
    decltype(TVMFFIErrorSetRaisedFromCStr)* raise;
  } api_{};
  bool on_gpu_ = false;
};

}  // namespace vitq

#endif  // VITQ_RUNTIME_H_

// Flavour `vm`: model.so runs on TVM's Relax VM, through the C interface of libtvm_ffi.
#include <cstdlib>
#include <cstring>

#include "dynamic.h"
#include "model.h"
#include "tvm/ffi/c_api.h"

namespace vitq {
namespace {

constexpr const char* kFfi = "lib/libtvm_ffi.so";
constexpr const char* kRuntime = "lib/libtvm_runtime.so";
constexpr int kPooledAllocator = 2;
constexpr size_t kAlignment = 64;

struct Api {
  decltype(TVMFFIFunctionGetGlobal)* get_global;
  decltype(TVMFFIFunctionCall)* call;
  decltype(TVMFFIObjectDecRef)* release;
  decltype(TVMFFITensorFromDLPack)* from_dlpack;
  decltype(TVMFFIErrorMoveFromRaised)* raised;
};

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

TVMFFIAny of_integer(int64_t number, int32_t kind = kTVMFFIInt) {
  TVMFFIAny value = none();
  value.type_index = kind;
  value.v_int64 = number;
  return value;
}

class VmModel : public Model {
 public:
  VmModel(const Manifest& manifest, int threads)
      : batch_codes_(manifest.batch * manifest.classes),
        batch_bytes_(manifest.batch * manifest.picture_bytes()),
        shape_{manifest.batch, manifest.channels, manifest.height, manifest.width} {
    setenv("TVM_NUM_THREADS", std::to_string(threads).c_str(), 1);
    void* ffi = open_library(manifest.path_of(kFfi), RTLD_GLOBAL);
    open_library(manifest.path_of(kRuntime), RTLD_GLOBAL);
    find_symbol(ffi, "TVMFFIFunctionGetGlobal", &api_.get_global);
    find_symbol(ffi, "TVMFFIFunctionCall", &api_.call);
    find_symbol(ffi, "TVMFFIObjectDecRef", &api_.release);
    find_symbol(ffi, "TVMFFITensorFromDLPack", &api_.from_dlpack);
    find_symbol(ffi, "TVMFFIErrorMoveFromRaised", &api_.raised);
    start(manifest.path_of("model.so"));
    make_input();
  }
  ~VmModel() override {
    // The modules must outlive the function; the process ends right after.
    api_.release(input_);
    std::free(pixels_);
  }

  void infer(const uint8_t* pixels, int32_t* codes) override {
    std::memcpy(pixels_, pixels, static_cast<size_t>(batch_bytes_));
    const TVMFFIAny result = call(main_, {of_object(input_, kTVMFFITensor)});
    if (result.type_index != kTVMFFITensor) throw Failure("the model returned no tensor");
    widen(*TVMFFITensorGetDLTensorPtr(result.v_obj), codes);
    api_.release(result.v_obj);
  }

 private:
  void start(const std::string& path) {
    const TVMFFIObjectHandle load = global("ffi.ModuleLoadFromFile");
    const TVMFFIAny module = call(load, {of_text(path.c_str())});
    const TVMFFIAny machine = call(method(module, "vm_load_executable"), {});
    call(method(machine, "vm_initialization"),
         {of_integer(kDLCPU), of_integer(0), of_integer(kPooledAllocator)});
    main_ = method(machine, "main");
  }

  TVMFFIObjectHandle global(const char* name) {
    const TVMFFIByteArray key{name, std::strlen(name)};
    TVMFFIObjectHandle function = nullptr;
    if (api_.get_global(&key, &function) != 0 || !function) {
      throw Failure(std::string("the runtime has no function ") + name);
    }
    return function;
  }

  TVMFFIObjectHandle method(const TVMFFIAny& module, const char* name) {
    if (module.type_index != kTVMFFIModule) throw Failure("model.so holds no module");
    const TVMFFIAny found = call(global("ffi.ModuleGetFunction"),
                                 {module, of_text(name), of_integer(1, kTVMFFIBool)});
    if (found.type_index != kTVMFFIFunction) {
      throw Failure(std::string("model.so has no function ") + name);
    }
    return found.v_obj;
  }

  TVMFFIAny call(TVMFFIObjectHandle function, std::vector<TVMFFIAny> args) {
    TVMFFIAny result = none();
    if (api_.call(function, args.data(), static_cast<int32_t>(args.size()), &result) != 0) {
      throw Failure("the runtime failed: " + raised_message());
    }
    return result;
  }

  std::string raised_message() {
    TVMFFIObjectHandle error = nullptr;
    api_.raised(&error);
    if (!error) return "unknown reason";
    const TVMFFIByteArray& message = TVMFFIErrorGetCellPtr(error)->message;
    const std::string text(message.data, message.size);
    return text.substr(0, text.find('\n'));
  }

  void make_input() {
    const size_t bytes = (static_cast<size_t>(batch_bytes_) + kAlignment - 1) & ~(kAlignment - 1);
    pixels_ = std::aligned_alloc(kAlignment, bytes);
    if (!pixels_) throw Failure("not enough memory");
    std::memset(&managed_, 0, sizeof managed_);
    managed_.dl_tensor.data = pixels_;
    managed_.dl_tensor.device = {kDLCPU, 0};
    managed_.dl_tensor.ndim = 4;
    managed_.dl_tensor.dtype = {kDLUInt, 8, 1};
    managed_.dl_tensor.shape = shape_;
    managed_.deleter = [](DLManagedTensor*) {};
    if (api_.from_dlpack(&managed_, 0, 0, &input_) != 0) {
      throw Failure("the runtime failed: " + raised_message());
    }
  }

  void widen(const DLTensor& tensor, int32_t* codes) const {
    int64_t size = 1;
    for (int i = 0; i < tensor.ndim; ++i) size *= tensor.shape[i];
    const auto* data = static_cast<const char*>(tensor.data) + tensor.byte_offset;
    if (size != batch_codes_ || tensor.dtype.code != kDLInt) {
      throw Failure("the model's output is not what the manifest says");
    }
    for (int64_t i = 0; i < size; ++i) {
      if (tensor.dtype.bits == 8) codes[i] = reinterpret_cast<const int8_t*>(data)[i];
      else if (tensor.dtype.bits == 16) codes[i] = reinterpret_cast<const int16_t*>(data)[i];
      else codes[i] = reinterpret_cast<const int32_t*>(data)[i];
    }
  }

  Api api_{};
  int64_t batch_codes_, batch_bytes_;
  int64_t shape_[4];
  TVMFFIObjectHandle main_ = nullptr, input_ = nullptr;
  void* pixels_ = nullptr;
  DLManagedTensor managed_;
};

}  // namespace

const char* const kFlavour = "vm";

std::vector<std::string> model_files() { return {"model.so", kFfi, kRuntime}; }

std::unique_ptr<Model> load_model(const Manifest& manifest, int threads) {
  return std::make_unique<VmModel>(manifest, threads);
}

}  // namespace vitq

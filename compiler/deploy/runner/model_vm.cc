// Flavour `vm`: model.so runs on TVM's Relax VM.
#include <cstdlib>
#include <cstring>

#include "failure.h"
#include "model.h"
#include "runtime.h"

namespace vitq {
namespace {

constexpr int kPooledAllocator = 2;
constexpr size_t kAlignment = 64;

class VmModel : public Model {
 public:
  VmModel(const Manifest& manifest, int threads)
      : runtime_(with_threads(manifest, threads)),
        batch_codes_(manifest.batch * manifest.classes),
        batch_bytes_(manifest.batch * manifest.picture_bytes()),
        shape_{manifest.batch, manifest.channels, manifest.height, manifest.width} {
    const TVMFFIAny module = runtime_.load_module(manifest.path_of("model.so"));
    const TVMFFIAny machine = runtime_.call(runtime_.method(module, "vm_load_executable"), {});
    runtime_.call(runtime_.method(machine, "vm_initialization"),
                  {of_integer(kDLCPU), of_integer(0), of_integer(kPooledAllocator)});
    main_ = runtime_.method(machine, "main");
    make_input();
  }
  ~VmModel() override {
    // The modules must outlive the function; the process ends right after.
    runtime_.release(input_);
    std::free(pixels_);
  }

  void infer(const uint8_t* pixels, int32_t* codes) override {
    std::memcpy(pixels_, pixels, static_cast<size_t>(batch_bytes_));
    const TVMFFIAny result = runtime_.call(main_, {of_object(input_, kTVMFFITensor)});
    if (result.type_index != kTVMFFITensor) throw Failure("the model returned no tensor");
    widen(*TVMFFITensorGetDLTensorPtr(result.v_obj), codes);
    runtime_.release(result.v_obj);
  }

 private:
  // The runtime reads the number when it is loaded.
  static const Manifest& with_threads(const Manifest& manifest, int threads) {
    setenv("TVM_NUM_THREADS", std::to_string(threads).c_str(), 1);
    return manifest;
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
    input_ = runtime_.tensor(&managed_);
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

  Runtime runtime_;
  int64_t batch_codes_, batch_bytes_;
  int64_t shape_[4];
  TVMFFIObjectHandle main_ = nullptr, input_ = nullptr;
  void* pixels_ = nullptr;
  DLManagedTensor managed_;
};

}  // namespace

const char* const kFlavour = "vm";

std::vector<std::string> model_files() {
  std::vector<std::string> files = runtime_files();
  files.push_back("model.so");
  return files;
}

std::unique_ptr<Model> load_model(const Manifest& manifest, int threads) {
  return std::make_unique<VmModel>(manifest, threads);
}

}  // namespace vitq

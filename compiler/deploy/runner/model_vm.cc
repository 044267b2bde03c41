// Flavour `vm`: model.so runs on TVM's Relax VM; in a bundle for GPUs on the first of them. The VM copies
// pixels to its device, and we copy codes back.
#include <cstdlib>
#include <cstring>

#include "cpu.h"
#include "failure.h"
#include "model.h"
#include "runtime.h"

namespace vitq {
namespace {

constexpr const char* kMain = "main";
constexpr int kPooledAllocator = 2;
constexpr size_t kAlignment = 64;

bool is_integer(const DLDataType& type) {
  return type.code == kDLInt || (type.code == kDLUInt && type.bits == 8);  // a class is unsigned
}

class VmModel : public Model {
 public:
  VmModel(const Manifest& manifest, int threads)
      : runtime_(with_threads(manifest, threads)),
        results_(manifest.results),
        batch_(manifest.batch),
        picture_codes_(manifest.integers),
        batch_bytes_(manifest.batch * manifest.picture_bytes()),
        shape_{manifest.batch, manifest.channels, manifest.height, manifest.width} {
    const TVMFFIAny module = runtime_.load_module(manifest.path_of("model.so"));
    const TVMFFIAny machine = runtime_.call(runtime_.method(module, "vm_load_executable"), {});
    std::vector<TVMFFIAny> devices;
    if (runtime_.on_gpu()) add_device(kDLCUDA, &devices);
    add_device(kDLCPU, &devices);
    runtime_.call(runtime_.method(machine, "vm_initialization"), devices);
    set_input_ = runtime_.method(machine, "set_input");
    invoke_ = runtime_.method(machine, "invoke_stateful");
    get_output_ = runtime_.method(machine, "get_output");
    copy_ = runtime_.global("runtime.TVMTensorCopyToBytes");
    make_input();
  }
  ~VmModel() override {
    // The modules must outlive the function; the process ends right after.
    runtime_.release(input_);
    std::free(pixels_);
  }

  void infer(const uint8_t* pixels, int32_t* codes) override {
    std::memcpy(pixels_, pixels, static_cast<size_t>(batch_bytes_));
    runtime_.call(set_input_, {of_text(kMain), of_object(input_, kTVMFFITensor)});
    runtime_.call(invoke_, {of_text(kMain)});
    if (results_.size() == 1) return take(runtime_.call(get_output_, {of_text(kMain)}), 0, codes);
    for (size_t i = 0; i < results_.size(); ++i) {
      const TVMFFIAny place = of_integer(static_cast<int64_t>(i));
      take(runtime_.call(get_output_, {of_text(kMain), place}), i, codes);
    }
  }

 private:
  // The runtime reads the number when it is loaded. Its threads wait for each other by spinning:
  // more of them than processors do not come to an end.
  static const Manifest& with_threads(const Manifest& manifest, int threads) {
    const int processors = processor_count();
    if (threads > processors) {
      throw Failure("--threads " + std::to_string(threads) + ": this machine gives " +
                    std::to_string(processors) + " processors, take at most as many");
    }
    setenv("TVM_NUM_THREADS", std::to_string(threads).c_str(), 1);
    return manifest;
  }

  static void add_device(int64_t kind, std::vector<TVMFFIAny>* devices) {
    for (const int64_t number : {kind, int64_t{0}, int64_t{kPooledAllocator}}) {
      devices->push_back(of_integer(number));
    }
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

  void take(const TVMFFIAny& result, size_t place, int32_t* codes) {
    if (result.type_index != kTVMFFITensor) throw Failure("the model returned no tensor");
    widen(result, results_[place], codes);
    runtime_.release(result.v_obj);
  }

  // A result's integers, copied from its device to their places in each picture's.
  void widen(const TVMFFIAny& result, const Result& meant, int32_t* codes) {
    const DLTensor& tensor = *tensor_of(result);
    int64_t size = 1;
    for (int i = 0; i < tensor.ndim; ++i) size *= tensor.shape[i];
    if (size != batch_ * meant.count || !is_integer(tensor.dtype)) {
      throw Failure("the model's output is not what the manifest says");
    }
    raw_.resize(static_cast<size_t>(size * (tensor.dtype.bits / 8)));
    runtime_.call(copy_, {result, of_address(raw_.data()),
                          of_integer(static_cast<int64_t>(raw_.size()))});
    const void* data = raw_.data();
    for (int64_t i = 0; i < size; ++i) {
      int32_t& code = codes[i / meant.count * picture_codes_ + meant.first + i % meant.count];
      if (tensor.dtype.code == kDLUInt) code = static_cast<const uint8_t*>(data)[i];
      else if (tensor.dtype.bits == 8) code = static_cast<const int8_t*>(data)[i];
      else if (tensor.dtype.bits == 16) code = static_cast<const int16_t*>(data)[i];
      else code = static_cast<const int32_t*>(data)[i];
    }
  }

  Runtime runtime_;
  std::vector<Result> results_;
  int64_t batch_, picture_codes_, batch_bytes_;
  int64_t shape_[4];
  TVMFFIObjectHandle set_input_ = nullptr, invoke_ = nullptr, get_output_ = nullptr;
  TVMFFIObjectHandle copy_ = nullptr, input_ = nullptr;
  std::vector<char> raw_;
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

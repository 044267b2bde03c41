// Flavour `static`: model.so has the plain C interface of vitq.h and needs no other library.
#include "dynamic.h"
#include "model.h"
#include "vitq.h"

namespace vitq {
namespace {

class StaticModel : public Model {
 public:
  StaticModel(const std::string& path, int threads) {
    void* library = open_library(path, RTLD_LOCAL);
    find_symbol(library, "vitq_memory_bytes", &memory_bytes_);
    find_symbol(library, "vitq_init", &init_);
    find_symbol(library, "vitq_infer", &infer_);
    find_symbol(library, "vitq_free", &free_);
    find_symbol(library, "vitq_error", &error_);
    find_symbol(library, "vitq_strerror", &text_);
    if (memory_bytes_(threads) == 0) {
      throw Failure("--threads " + std::to_string(threads) + ": the library takes 1 to 64");
    }
    const int code = init_(&context_, nullptr, 0, threads);
    if (code != VITQ_OK) {
      throw Failure(std::string("the model cannot be started: ") + text_(code));
    }
    planned_bytes_ = static_cast<int64_t>(memory_bytes_(threads));
  }
  ~StaticModel() override { free_(context_); }

  void infer(const uint8_t* pixels, int32_t* codes) override {
    if (infer_(context_, pixels, codes) != VITQ_OK) {
      throw Failure(std::string("the model failed: ") + error_(context_));
    }
  }
  int64_t planned_bytes() const override { return planned_bytes_; }

 private:
  decltype(vitq_memory_bytes)* memory_bytes_ = nullptr;
  decltype(vitq_init)* init_ = nullptr;
  decltype(vitq_infer)* infer_ = nullptr;
  decltype(vitq_free)* free_ = nullptr;
  decltype(vitq_error)* error_ = nullptr;
  decltype(vitq_strerror)* text_ = nullptr;
  vitq_context* context_ = nullptr;
  int64_t planned_bytes_ = 0;
};

}  // namespace

const char* const kFlavour = "static";

std::vector<std::string> model_files() { return {"model.so"}; }

std::unique_ptr<Model> load_model(const Manifest& manifest, int threads) {
  return std::make_unique<StaticModel>(manifest.path_of("model.so"), threads);
}

}  // namespace vitq

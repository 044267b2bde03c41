// vitq-run: runs the model of the bundle that it lies in. Opens no network connection.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cpu.h"
#include "dense.h"
#include "description.h"
#include "failure.h"
#include "infer.h"
#include "manifest.h"
#include "model.h"
#include "pictures.h"

namespace vitq {
namespace {

constexpr const char* kUsage =
    "usage: vitq-run verify | infer FILE... | segment FILE | depth FILE | detect FILE | bench | info\n"
    "  verify   check every file, run the golden pictures, compare each integer\n"
    "  infer    classes of pictures: JPEG, PNG, PPM; folders; .npy or raw uint8 (N, C, H, W)\n"
    "             --top N (5)   --labels FILE (one name a line)   --json\n"
    "             --raw (all integers)\n"
    "             --features FILE.npy (real numbers instead; of several results FILE.<name>.npy\n"
    "             each, or one of them with --result NAME)\n"
    "  segment  classes of a picture's pixels;  depth: a map of values;  detect: boxes (DETR, YOLOS)\n"
    "             --overlay FILE.png (drawn over what the model saw)   --json\n"
    "             --score P (0.5; of boxes, those that overlap a better one are left out)\n"
    "  bench    time the model:  --rounds N (50)   --warmup N (5)   --json\n"
    "  info     what the bundle holds\n"
    "  --threads N (1) for all; --bundle FOLDER: the runner's own folder if absent\n"
    "exit codes: 0 fine, 1 an integer differs, 2 a mistake or a damaged file, 3 wrong\n"
    "processor, 4 the output could not be written\n";

constexpr long kMost = 1000000;  // of what is counted in options

struct Options {
  std::string command, bundle;
  InferOptions infer;
  DenseOptions dense;
  int rounds = 50, warmup = 5, threads = 1;
  bool json = false;
};

int number_of(const std::string& name, const std::string& text, int least) {
  char* end = nullptr;
  const long value = std::strtol(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || value < least || value > kMost) {
    throw Failure(name + " " + text + ": give a number from " + std::to_string(least) + " to " +
                  std::to_string(kMost));
  }
  return static_cast<int>(value);
}

double share_of(const std::string& name, const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value >= 0 && value <= 1)) {
    throw Failure(name + " " + text + ": give a number from 0 to 1");
  }
  return value;
}

bool answers_with_pictures(const std::string& command) {
  return command == "segment" || command == "depth" || command == "detect";
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 >= argc) throw Failure(word + " needs a value");
      return argv[++i];
    };
    if (word == "--top") options.infer.top = number_of(word, value(), 1);
    else if (word == "--rounds") options.rounds = number_of(word, value(), 1);
    else if (word == "--warmup") options.warmup = number_of(word, value(), 0);
    else if (word == "--threads") options.threads = number_of(word, value(), 1);
    else if (word == "--labels") options.infer.labels = value();
    else if (word == "--bundle") options.bundle = value();
    else if (word == "--overlay") options.dense.overlay = value();
    else if (word == "--score") options.dense.score = share_of(word, value());
    else if (word == "--json") options.json = options.infer.json = options.dense.json = true;
    else if (word == "--raw") options.infer.raw = true;
    else if (word == "--features") options.infer.features = value();
    else if (word == "--result") options.infer.result = value();
    else if (word[0] == '-') throw Failure("unknown option " + word + "; see vitq-run --help");
    else if (options.command.empty()) options.command = word;
    else if (options.command == "infer") options.infer.sources.push_back(word);
    else if (answers_with_pictures(options.command) && options.dense.source.empty()) {
      options.dense.source = word;
    }
    else throw Failure("unexpected " + word + "; see vitq-run --help");
  }
  return options;
}

std::vector<uint8_t> golden_pixels(const Manifest& manifest) {
  check_files(manifest, {"golden_pixels.npy"});
  return read_pictures(manifest.path_of("golden_pixels.npy"), manifest);
}

int verify(Model& model, const Manifest& manifest) {
  const std::vector<uint8_t> pixels = golden_pixels(manifest);
  const std::vector<int32_t> wanted =
      read_codes(manifest.path_of("golden_codes.npy"), manifest.integers);
  const std::vector<int32_t> found = run_all(model, manifest, pixels);
  if (found.size() != wanted.size()) throw Failure("golden_codes.npy fits no golden_pixels.npy");
  for (size_t i = 0; i < found.size(); ++i) {
    if (found[i] == wanted[i]) continue;
    const size_t integers = static_cast<size_t>(manifest.integers);
    const bool is_plain = manifest.logits() && manifest.results.size() == 1;
    throw Failure("picture " + std::to_string(i / integers) + (is_plain ? ", class " : ", integer ") +
                      std::to_string(i % integers) + ": " + std::to_string(found[i]) +
                      " instead of " + std::to_string(wanted[i]),
                  kDifferent);
  }
  std::printf("verify: %zu files as in the manifest, %zu integers equal the golden ones\n",
              manifest.files.size(), found.size());
  return kFine;
}

// Nearest-rank percentile of sorted times.
double percentile(const std::vector<double>& sorted, int percent) {
  const size_t rank = (sorted.size() * static_cast<size_t>(percent) + 99) / 100;
  return sorted[std::max<size_t>(rank, 1) - 1];
}

int bench(Model& model, const Manifest& manifest, const Options& options) {
  const std::vector<uint8_t> golden = golden_pixels(manifest);
  std::vector<uint8_t> pixels(static_cast<size_t>(manifest.batch * manifest.picture_bytes()));
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = golden[i % golden.size()];
  std::vector<int32_t> codes(static_cast<size_t>(manifest.batch * manifest.integers));
  std::vector<double> times;
  for (int i = 0; i < options.warmup + options.rounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    model.infer(pixels.data(), codes.data());
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
    if (i >= options.warmup) times.push_back(time.count());
  }
  std::sort(times.begin(), times.end());
  const double median = percentile(times, 50), p90 = percentile(times, 90);
  const double p99 = percentile(times, 99);
  const char* format =
      options.json
          ? "{\"rounds\": %d, \"batch\": %lld, \"threads\": %d, \"min_ms\": %.4f, "
            "\"median_ms\": %.4f, \"p90_ms\": %.4f, \"p99_ms\": %.4f, \"peak_bytes\": %lld, "
            "\"planned_bytes\": %lld}\n"
          : "bench: %d rounds, batch %lld, %d thread(s): min %.3f ms, median %.3f ms, "
            "p90 %.3f ms, p99 %.3f ms; peak memory of the process %lld bytes, "
            "planned beside the weights %lld bytes\n";
  std::printf(format, options.rounds, static_cast<long long>(manifest.batch), options.threads,
              times.front(), median, p90, p99, static_cast<long long>(peak_bytes()),
              static_cast<long long>(model.planned_bytes()));
  return kFine;
}

std::string text_of(const Manifest& manifest) {
  const Result* logits = manifest.logits();
  if (logits && manifest.results.size() == 1) return std::to_string(logits->count) + " classes";
  std::string text;
  for (const Result& result : manifest.results) {
    text += (text.empty() ? "" : ", ") + result.name;
    for (size_t i = 0; i < result.shape.size(); ++i) {
      text += (i ? "x" : " ") + std::to_string(result.shape[i]);
    }
  }
  return text;
}

int info(const Manifest& manifest) {
  int64_t total = 0;
  for (const BundleFile& file : manifest.files) total += file.size_bytes;
  std::printf("%s, %s flavour, for %s (%s): %lld x %lld x %lld x %lld uint8 -> %s; "
              "%zu files, %lld bytes\n",
              manifest.model.c_str(), manifest.flavour.c_str(), manifest.target.c_str(),
              manifest.architecture.c_str(), static_cast<long long>(manifest.batch),
              static_cast<long long>(manifest.channels), static_cast<long long>(manifest.height),
              static_cast<long long>(manifest.width), text_of(manifest).c_str(),
              manifest.files.size(), static_cast<long long>(total));
  return kFine;
}

int run(int argc, char** argv) {
  const Options options = parse(argc, argv);
  const std::string& command = options.command;
  const bool is_dense = answers_with_pictures(command);
  if (command != "verify" && command != "infer" && command != "bench" && command != "info" &&
      !is_dense) {
    throw Failure("give a command: verify, infer, segment, depth, detect, bench or info; see "
                  "vitq-run --help");
  }
  if (is_dense && options.dense.source.empty()) throw Failure(command + " needs a picture");
  if (!is_dense && !options.dense.overlay.empty()) {
    throw Failure("--overlay is for segment, depth and detect");
  }
  if (command == "infer" && options.infer.sources.empty()) throw Failure("infer needs a file");
  const bool has_features = !options.infer.features.empty();
  if (options.infer.raw + options.infer.json + has_features > 1) {
    throw Failure("give --raw, --json or --features, not several");
  }
  if (!options.infer.result.empty() && !has_features) throw Failure("--result needs --features");
  const Manifest manifest =
      read_manifest(options.bundle.empty() ? own_folder() : options.bundle);
  if (manifest.flavour != kFlavour) {
    throw Failure("this runner is for the " + std::string(kFlavour) + " flavour, the bundle is " +
                  manifest.flavour);
  }
  if (command == "info") return info(manifest);
  check_processor(manifest.architecture, manifest.cpu_needs, manifest.target);
  if (command == "verify") check_all_files(manifest);
  else check_files(manifest, model_files());
  const std::unique_ptr<Model> model = load_model(manifest, options.threads);
  if (command == "verify") return verify(*model, manifest);
  if (command == "bench") return bench(*model, manifest, options);
  if (command == "segment") segment(*model, manifest, options.dense);
  else if (command == "depth") depth(*model, manifest, options.dense);
  else if (command == "detect") detect(*model, manifest, options.dense);
  else infer(*model, manifest, options.infer);
  return kFine;
}

}  // namespace
}  // namespace vitq

int main(int argc, char** argv) {
  return vitq::run_program("vitq-run", vitq::kUsage, vitq::run, argc, argv);
}

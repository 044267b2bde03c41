#include "infer.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <sstream>

#include "failure.h"
#include "json.h"
#include "npy.h"
#include "pictures.h"

namespace vitq {
namespace {

constexpr int64_t kLabelsLimit = 1 << 26;

namespace fs = std::filesystem;

std::vector<std::string> read_labels(const Manifest& manifest, const std::string& given) {
  std::string path = given;
  if (path.empty()) {
    if (!manifest.lists("labels.txt")) return {};
    check_files(manifest, {"labels.txt"});
    path = manifest.path_of("labels.txt");
  }
  std::istringstream lines(read_file(path, kLabelsLimit));
  std::vector<std::string> labels;
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    labels.push_back(line);
  }
  const int64_t classes = manifest.logits() ? manifest.logits()->count : 0;
  if (labels.size() != static_cast<size_t>(classes)) {
    throw Failure(path + " has " + std::to_string(labels.size()) + " lines: the model has " +
                  std::to_string(classes) + " classes");
  }
  return labels;
}

// What lies in a folder and is not hidden, in the order of the names.
std::vector<fs::path> entries_of(const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> found;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    if (at->path().filename().string()[0] != '.') found.push_back(at->path());
  }
  if (error) throw Failure(folder.string() + " cannot be read: " + error.message());
  std::sort(found.begin(), found.end());
  return found;
}

std::vector<std::string> pictures_in(const fs::path& folder) {
  std::vector<std::string> files;
  for (const fs::path& entry : entries_of(folder)) {
    if (has_picture_name(entry.string())) files.push_back(entry.string());
  }
  return files;
}

// A file is itself; a folder is its pictures, or those of its class folders.
std::vector<std::string> files_of(const std::string& source) {
  if (!fs::is_directory(source)) return {source};
  const std::vector<std::string> own = pictures_in(source);
  std::vector<std::string> inner;
  for (const fs::path& entry : entries_of(source)) {
    if (!fs::is_directory(entry)) continue;
    const std::vector<std::string> some = pictures_in(entry);
    inner.insert(inner.end(), some.begin(), some.end());
  }
  if (own.empty() && inner.empty()) throw Failure(source + " holds no pictures (.jpg, .png, .ppm)");
  if (!own.empty() && !inner.empty()) {
    throw Failure(source + " holds pictures beside folders of pictures: name those that you mean");
  }
  return own.empty() ? inner : own;
}

// The values of one result, of all pictures.
class Features {
 public:
  Features(const Result& result, const std::string& path) : result_(result), path_(path) {}

  void add(const int32_t* row) {
    for (int64_t i = 0; i < result_.count; ++i) {
      values_.push_back(static_cast<float>(result_.real(row[result_.first + i])));
    }
  }

  void write(size_t pictures) const {
    std::vector<int64_t> shape = result_.shape;
    shape.insert(shape.begin(), static_cast<int64_t>(pictures));
    write_npy(path_, shape, values_);
    std::printf("%s: %s, %zu picture(s)\n", path_.c_str(), result_.name.c_str(), pictures);
  }

 private:
  const Result& result_;
  const std::string path_;
  std::vector<float> values_;
};

// One file for one result; for several FILE.npy becomes FILE.<result>.npy.
std::vector<Features> features_of(const Manifest& manifest, const InferOptions& options) {
  const std::string& path = options.features;
  const size_t end = path.size() - 4;
  if (path.size() < 5 || path.compare(end, 4, ".npy") != 0) {
    throw Failure("--features " + path + ": give a name that ends in .npy");
  }
  std::vector<Features> found;
  for (const Result& result : manifest.results) {
    const bool is_alone = manifest.results.size() == 1 || !options.result.empty();
    if (!options.result.empty() && result.name != options.result) continue;
    std::string name = result.name;
    std::replace(name.begin(), name.end(), '/', '_');
    found.emplace_back(result, is_alone ? path : path.substr(0, end) + "." + name + ".npy");
  }
  if (found.empty()) {
    throw Failure("--result " + options.result + ": the model returns " + manifest.result_names());
  }
  return found;
}

class Answers {
 public:
  Answers(Model& model, const Manifest& manifest, const InferOptions& options)
      : model_(model),
        manifest_(manifest),
        options_(options),
        logits_(manifest.logits()),
        labels_(options.features.empty() ? read_labels(manifest, options.labels)
                                         : std::vector<std::string>()) {
    if (!options.features.empty()) features_ = features_of(manifest, options);
    else if (!logits_ && !options.raw) {
      throw Failure("the model ranks no classes, it returns " + manifest.result_names() +
                    ": give --features FILE.npy, or --raw");
    }
  }

  // Pictures wait until a batch is full.
  void add(const std::string& file) {
    const std::vector<uint8_t> pixels = read_pictures(file, manifest_);
    const size_t bytes = static_cast<size_t>(manifest_.picture_bytes());
    const size_t count = pixels.size() / bytes;
    for (size_t i = 0; i < count; ++i) {
      const auto first = pixels.begin() + static_cast<long>(i * bytes);
      pixels_.insert(pixels_.end(), first, first + static_cast<long>(bytes));
      names_.push_back(count == 1 ? file : file + "[" + std::to_string(i) + "]");
      if (names_.size() == static_cast<size_t>(manifest_.batch)) flush();
    }
  }

  void flush() {
    if (names_.empty()) return;
    const std::vector<int32_t> codes = run_all(model_, manifest_, pixels_);
    const size_t integers = static_cast<size_t>(manifest_.integers);
    for (size_t i = 0; i < names_.size(); ++i) take(names_[i], &codes[i * integers]);
    pixels_.clear();
    names_.clear();
  }

  void end() {
    flush();
    for (const Features& each : features_) each.write(pictures_);
    if (options_.json && features_.empty()) std::printf("\n]}\n");
  }

 private:
  double logit(int32_t code) const { return logits_->real(code); }

  void take(const std::string& name, const int32_t* row) {
    ++pictures_;
    for (Features& each : features_) each.add(row);
    if (!features_.empty()) return;
    const int64_t integers = manifest_.integers;
    if (!options_.raw) return print(name, row + logits_->first);
    for (int64_t i = 0; i < integers; ++i) std::printf("%d%c", row[i], i + 1 < integers ? ' ' : '\n');
  }

  void print(const std::string& name, const int32_t* row) {
    const int classes = static_cast<int>(logits_->count);
    const int top = std::min(options_.top, classes);
    std::vector<int> order(static_cast<size_t>(classes));
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + top, order.end(), [&](int a, int b) {
      return row[a] != row[b] ? row[a] > row[b] : a < b;
    });
    double sum = 0;
    for (int c = 0; c < classes; ++c) sum += std::exp(logit(row[c]) - logit(row[order[0]]));
    if (options_.json) {
      std::printf("%s\n {\"picture\": %s, \"classes\": [", first_ ? "{\"answers\": [" : ",",
                  quoted(name).c_str());
    } else {
      std::printf("%s\n", name.c_str());
    }
    first_ = false;
    for (int i = 0; i < top; ++i) {
      const int c = order[static_cast<size_t>(i)];
      const double share = std::exp(logit(row[c]) - logit(row[order[0]])) / sum;
      print(c, logit(row[c]), share, i);
    }
    if (options_.json) std::printf("]}");
  }

  void print(int c, double logit, double share, int place) const {
    const std::string* label = labels_.empty() ? nullptr : &labels_[static_cast<size_t>(c)];
    if (options_.json) {
      std::printf("%s{\"class\": %d, \"name\": %s, \"logit\": %.9g, \"probability\": %.9g}",
                  place ? ", " : "", c, label ? quoted(*label).c_str() : "null", logit, share);
    } else {
      std::printf("  %5d  %9.4f  %5.1f %%  %s\n", c, logit, 100 * share,
                  label ? label->c_str() : "");
    }
  }

  Model& model_;
  const Manifest& manifest_;
  const InferOptions& options_;
  const Result* const logits_;
  const std::vector<std::string> labels_;
  std::vector<Features> features_;
  size_t pictures_ = 0;
  std::vector<uint8_t> pixels_;
  std::vector<std::string> names_;
  bool first_ = true;
};

}  // namespace

std::vector<int32_t> run_all(Model& model, const Manifest& manifest,
                             const std::vector<uint8_t>& pixels) {
  const size_t bytes = static_cast<size_t>(manifest.picture_bytes());
  const size_t batch = static_cast<size_t>(manifest.batch), count = pixels.size() / bytes;
  const size_t integers = static_cast<size_t>(manifest.integers);
  std::vector<uint8_t> in(batch * bytes);
  std::vector<int32_t> out(batch * integers), codes;
  for (size_t start = 0; start < count; start += batch) {
    for (size_t i = 0; i < batch; ++i) {
      const size_t picture = std::min(start + i, count - 1);
      std::memcpy(&in[i * bytes], &pixels[picture * bytes], bytes);
    }
    model.infer(in.data(), out.data());
    const size_t taken = std::min(batch, count - start) * integers;
    codes.insert(codes.end(), out.begin(), out.begin() + static_cast<long>(taken));
  }
  return codes;
}

void infer(Model& model, const Manifest& manifest, const InferOptions& options) {
  Answers answers(model, manifest, options);
  for (const std::string& source : options.sources) {
    for (const std::string& file : files_of(source)) answers.add(file);
  }
  answers.end();
}

}  // namespace vitq

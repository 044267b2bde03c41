#include "manifest.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdio>
#include <memory>

#include "failure.h"
#include "json.h"
#include "sha256.h"

namespace vitq {
namespace {

constexpr int64_t kFormat = 1;
constexpr int64_t kManifestLimit = 1 << 20;
constexpr int64_t kLargestDimension = 1 << 16;
constexpr int64_t kMostIntegers = 1 << 28;  // of one picture

int64_t size_of(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) {
    throw Failure(path + " is missing or cannot be read");
  }
  return status.st_size;
}

int64_t dimension(const Json& value) {
  const int64_t size = value.integer();
  if (size < 1 || size > kLargestDimension) throw Failure("manifest.json: impossible dimension");
  return size;
}

Result read_result(const Json& content, int64_t batch, int64_t first) {
  const auto sizes = content.at("shape").items();
  if (sizes.empty() || dimension(sizes[0]) != batch) throw Failure("manifest.json: unknown shapes");
  Result result{content.at("name").text(), {}, first, 1, content.at("scale").number(),
                content.at("zero_point").integer()};
  for (size_t i = 1; i < sizes.size(); ++i) {
    result.shape.push_back(dimension(sizes[i]));
    result.count *= result.shape.back();
    if (result.count > kMostIntegers) throw Failure("manifest.json: impossible dimension");
  }
  return result;
}

// A bundle of an earlier version has one output only.
std::vector<Json> outputs_of(const Json& content) {
  if (content.has("outputs")) return content.at("outputs").items();
  return {content.at("output")};
}

void read_meaning(const Json& content, Manifest* manifest) {
  const auto input = content.at("input").at("shape").items();
  if (input.size() != 4) throw Failure("manifest.json: unknown shapes");
  manifest->batch = dimension(input[0]);
  manifest->channels = dimension(input[1]);
  manifest->height = dimension(input[2]);
  manifest->width = dimension(input[3]);
  manifest->integers = 0;
  for (const Json& output : outputs_of(content)) {
    manifest->results.push_back(read_result(output, manifest->batch, manifest->integers));
    manifest->integers += manifest->results.back().count;
    if (manifest->integers > kMostIntegers) throw Failure("manifest.json: impossible dimension");
  }
  if (manifest->results.empty()) throw Failure("manifest.json: unknown shapes");
  if (!content.has("outputs")) manifest->ranking = manifest->results[0].name;
  else if (content.has("logits")) manifest->ranking = content.at("logits").text();
  manifest->preprocessing =
      read_preprocessing(content, manifest->channels, manifest->height, manifest->width);
}

void check_file(const Manifest& manifest, const BundleFile& file) {
  const std::string path = manifest.path_of(file.path);
  if (size_of(path) != file.size_bytes || sha256_of_file(path) != file.sha256) {
    throw Failure(path + " is not the file of this bundle (SHA-256 differs): copy it again");
  }
}

}  // namespace

bool Manifest::lists(const std::string& name) const {
  return std::any_of(files.begin(), files.end(),
                     [&](const BundleFile& file) { return file.path == name; });
}

const Result* Manifest::logits() const {
  for (const Result& result : results) {
    if (result.shape.size() == 1 && result.name == ranking) return &result;
  }
  return nullptr;
}

std::string Manifest::result_names() const {
  std::string names;
  for (const Result& result : results) names += (names.empty() ? "" : ", ") + result.name;
  return names;
}

std::string own_folder() {
  char path[PATH_MAX];
  const ssize_t size = readlink("/proc/self/exe", path, sizeof path - 1);
  if (size <= 0) throw Failure("the program's folder is unknown: give --bundle");
  const std::string text(path, static_cast<size_t>(size));
  return text.substr(0, text.rfind('/'));
}

std::string read_file(const std::string& path, int64_t limit) {
  const int64_t size = size_of(path);
  if (size > limit) throw Failure(path + " is too large");
  std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  std::string content(static_cast<size_t>(size), '\0');
  if (!file || std::fread(&content[0], 1, content.size(), file.get()) != content.size()) {
    throw Failure(path + " is missing or cannot be read");
  }
  return content;
}

Manifest read_manifest(const std::string& folder) {
  Manifest manifest;
  manifest.folder = folder;
  const std::string path = manifest.path_of("manifest.json");
  const std::string text = read_file(path, kManifestLimit);
  Sha256 digest;
  digest.update(text.data(), text.size());
  if (read_file(manifest.path_of("manifest.sha256"), 4096) != digest.hex() + "  manifest.json\n") {
    throw Failure(path + " is not the manifest of this bundle (SHA-256 differs): copy it again");
  }
  manifest = parse_manifest(text, path);
  manifest.folder = folder;
  return manifest;
}

Manifest parse_manifest(const std::string& text, const std::string& path) {
  Manifest manifest;
  const Json content = Json::parse(text, path);
  if (content.at("format").integer() != kFormat) throw Failure(path + " has an unknown format");
  manifest.model = content.at("model").text();
  manifest.model_id = manifest.model + " " + content.at("compiled_library_sha256").text();
  manifest.flavour = content.at("flavour").text();
  manifest.target = content.at("target").text();
  manifest.architecture = content.at("architecture").text();
  for (const Json& need : content.at("cpu_needs").items()) {
    manifest.cpu_needs.push_back(need.text());
  }
  read_meaning(content, &manifest);
  for (const Json& file : content.at("files").items()) {
    manifest.files.push_back(
        {file.at("path").text(), file.at("sha256").text(), file.at("size_bytes").integer()});
  }
  return manifest;
}

void check_files(const Manifest& manifest, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const auto found = std::find_if(manifest.files.begin(), manifest.files.end(),
                                    [&](const BundleFile& file) { return file.path == name; });
    if (found == manifest.files.end()) throw Failure("manifest.json does not list " + name);
    check_file(manifest, *found);
  }
}

void check_all_files(const Manifest& manifest) {
  for (const BundleFile& file : manifest.files) check_file(manifest, file);
}

}  // namespace vitq

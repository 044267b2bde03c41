// The bundle's manifest: what the model is, what it needs, and the hash of every file.
#ifndef VITQ_MANIFEST_H_
#define VITQ_MANIFEST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "preprocessing.h"

namespace vitq {

struct BundleFile {
  std::string path;  // inside the bundle
  std::string sha256;
  int64_t size_bytes;
};

// One result of the model; of a picture's integers those from `first` on.
struct Result {
  std::string name;
  std::vector<int64_t> shape;  // for one picture
  int64_t first, count;
  double scale;
  int64_t zero_point;

  double real(int32_t code) const { return scale * static_cast<double>(code - zero_point); }
};

struct Manifest {
  std::string folder;
  std::string model;
  std::string flavour;
  std::string target;
  std::string architecture;
  std::vector<std::string> cpu_needs;
  int64_t batch, channels, height, width;
  int64_t integers;  // of each picture, all results
  std::vector<Result> results;
  std::string ranking;  // name of the result that ranks classes, empty where none does
  Preprocessing preprocessing;
  std::string model_id;  // name and hash, as the C library's vitq_model_id
  std::vector<BundleFile> files;

  int64_t picture_bytes() const { return channels * height * width; }
  std::string path_of(const std::string& name) const { return folder + "/" + name; }
  bool lists(const std::string& name) const;
  // The result that ranks classes; null where there is none.
  const Result* logits() const;
  std::string result_names() const;  // with commas
};

// The folder that this program lies in: its bundle. Throws Failure.
std::string own_folder();

// Reads and checks the manifest against manifest.sha256. Throws Failure.
Manifest read_manifest(const std::string& folder);

// Of the file's text; `path` is what a message calls it. Throws Failure.
Manifest parse_manifest(const std::string& text, const std::string& path);

// Throws Failure, naming the first file that is not what the manifest says.
void check_files(const Manifest& manifest, const std::vector<std::string>& names);
void check_all_files(const Manifest& manifest);

// The whole content of a file. Throws Failure if it is larger than `limit` or unreadable.
std::string read_file(const std::string& path, int64_t limit);

}  // namespace vitq

#endif  // VITQ_MANIFEST_H_

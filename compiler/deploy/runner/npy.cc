#include "npy.h"

#include <cctype>
#include <cstdio>
#include <cstdlib>

#include "failure.h"

namespace vitq {
namespace {

constexpr size_t kShown = 16;  // characters of a kind that is refused
constexpr int64_t kLargestSize = int64_t{1} << 31;

// The text after 'key': in the header's Python dictionary.
std::string value_of(const std::string& header, const std::string& key, const std::string& path) {
  const size_t at = header.find("'" + key + "':");
  if (at == std::string::npos || header.find("'" + key + "':", at + 1) != std::string::npos) {
    throw Failure(path + ": the .npy header has no " + key);
  }
  size_t start = at + key.size() + 3;
  while (start < header.size() && header[start] == ' ') ++start;
  return header.substr(start);
}

std::vector<int64_t> shape_of(const std::string& text, const std::string& path) {
  const size_t end = text.find(')');
  if (text.empty() || text[0] != '(' || end == std::string::npos) {
    throw Failure(path + ": the .npy header's shape cannot be read");
  }
  std::vector<int64_t> shape;
  const char* at = text.c_str() + 1;
  const char* last = text.c_str() + end;
  while (at < last) {
    if (*at == ' ' || *at == ',') {
      ++at;
      continue;
    }
    char* next = nullptr;
    const long long size = std::isdigit(*at) ? std::strtoll(at, &next, 10) : -1;
    if (size < 0 || size > kLargestSize) throw Failure(path + ": the .npy header's shape is wrong");
    shape.push_back(size);
    at = next;
  }
  return shape;
}

int64_t bytes_of(const NpyArray& array, const std::string& path) {
  int64_t size = array.descr.back() - '0';
  for (int64_t dim : array.shape) {
    if (dim > 0 && size > kLargestSize / dim) throw Failure(path + " is too large");
    size *= dim;
  }
  return size;
}

}  // namespace

NpyArray parse_npy(const std::string& content, const std::string& path) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(content[i]); };
  if (content.size() < 12 || content.compare(0, 6, "\x93NUMPY") != 0) {
    throw Failure(path + " is no .npy file");
  }
  const int version = byte(6);
  if (version < 1 || version > 3) throw Failure(path + ": unknown .npy version");
  const size_t start = version == 1 ? 10 : 12;
  size_t length = byte(8) | size_t{byte(9)} << 8;
  if (version > 1) length |= size_t{byte(10)} << 16 | size_t{byte(11)} << 24;
  if (length > content.size() - start) throw Failure(path + ": the .npy header is cut off");

  const std::string header = content.substr(start, length);
  NpyArray array;
  const std::string descr = value_of(header, "descr", path);
  array.descr = descr.substr(0, descr.find('\'', 1)).erase(0, 1);
  if (array.descr != "|u1" && array.descr != "<i4") {
    throw Failure(path + " holds " + array.descr.substr(0, kShown) + ": the model takes raw pixels, uint8");
  }
  if (value_of(header, "fortran_order", path).compare(0, 5, "False") != 0) {
    throw Failure(path + " is in Fortran order: save it in C order");
  }
  array.shape = shape_of(value_of(header, "shape", path), path);
  array.data = content.substr(start + length);
  if (static_cast<int64_t>(array.data.size()) != bytes_of(array, path)) {
    throw Failure(path + ": the .npy's size is not what its header says");
  }
  return array;
}

void write_npy(const std::string& path, const std::vector<int64_t>& shape,
               const std::vector<float>& values) {
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (";
  for (const int64_t size : shape) header += std::to_string(size) + ",";
  header += "), }";
  const size_t used = 10 + header.size() + 1;
  header += std::string((64 - used % 64) % 64, ' ') + "\n";  // the data begin at a multiple of 64
  std::string start = std::string("\x93NUMPY\x01\x00", 8);
  start += static_cast<char>(header.size() & 0xFF);
  start += static_cast<char>(header.size() >> 8);
  const std::string temporary = path + ".part";
  FILE* file = std::fopen(temporary.c_str(), "wb");
  bool is_fine = file != nullptr;
  is_fine = is_fine && std::fwrite(start.data(), 1, start.size(), file) == start.size();
  is_fine = is_fine && std::fwrite(header.data(), 1, header.size(), file) == header.size();
  is_fine = is_fine && std::fwrite(values.data(), sizeof(float), values.size(), file) == values.size();
  if (file && std::fclose(file) != 0) is_fine = false;
  if (is_fine && std::rename(temporary.c_str(), path.c_str()) == 0) return;
  if (file) std::remove(temporary.c_str());
  throw Failure(path + " could not be written", kLost);
}

}  // namespace vitq

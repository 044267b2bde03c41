// A strict reader of the JSON that the manifest needs: no floats beyond strtod, no \u escapes.
#ifndef VITQ_JSON_H_
#define VITQ_JSON_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace vitq {

class Json {
 public:
  // Throws Failure, naming the place in the text.
  static Json parse(const std::string& text, const std::string& name);

  // Each throws Failure where the value is of another kind or the field is missing.
  const Json& at(const std::string& key) const;
  const std::vector<Json>& items() const;
  const std::string& text() const;
  double number() const;
  int64_t integer() const;
  bool has(const std::string& key) const;

 private:
  friend class JsonReader;
  enum class Kind { kNull, kBool, kNumber, kString, kArray, kObject };
  void require(Kind kind, const char* what) const;

  Kind kind_ = Kind::kNull;
  double number_ = 0;
  std::string text_;
  std::vector<Json> items_;
  std::vector<std::string> keys_;
};

}  // namespace vitq

#endif  // VITQ_JSON_H_

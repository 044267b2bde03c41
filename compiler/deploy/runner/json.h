// JSON in and out. What reads it is yyjson (third_party/): strict, without recursion, UTF-8 checked.
#ifndef VITQ_JSON_H_
#define VITQ_JSON_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

struct yyjson_doc;
struct yyjson_val;

namespace vitq {

// A value of a document, which lives as long as any of its values.
class Json {
 public:
  // Throws Failure, naming the place in the text; `name` is the file's.
  static Json parse(const std::string& text, const std::string& name);

  // Each throws Failure where the value is of another kind or the field is missing.
  Json at(const std::string& key) const;
  bool has(const std::string& key) const;  // and it is not null
  std::vector<Json> items() const;
  std::string text() const;  // UTF-8, without NUL
  double number() const;
  int64_t integer() const;

 private:
  struct Document {
    std::shared_ptr<yyjson_doc> content;
    std::string name;
  };
  Json(std::shared_ptr<const Document> document, yyjson_val* value)
      : document_(std::move(document)), value_(value) {}
  [[noreturn]] void fail(const std::string& what) const;

  std::shared_ptr<const Document> document_;
  yyjson_val* value_;
};

// A JSON string of UTF-8 text; bytes of text that is no UTF-8 become question marks.
std::string quoted(const std::string& text);

}  // namespace vitq

#endif  // VITQ_JSON_H_

#include "json.h"

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "failure.h"

namespace vitq {

class JsonReader {
 public:
  JsonReader(const std::string& text, const std::string& name) : text_(text), name_(name) {}

  Json document() {
    Json value = read(0);
    skip();
    if (at_ != text_.size()) fail();
    return value;
  }

 private:
  static constexpr int kDeepest = 16;

  [[noreturn]] void fail() const {
    throw Failure(name_ + " is not valid JSON at byte " + std::to_string(at_));
  }
  void skip() {
    while (at_ < text_.size() && std::strchr(" \t\r\n", text_[at_])) ++at_;
  }
  bool take(char wanted) {
    skip();
    if (at_ >= text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }
  void expect(char wanted) {
    if (!take(wanted)) fail();
  }
  bool word(const char* wanted) {
    if (text_.compare(at_, std::strlen(wanted), wanted) != 0) return false;
    at_ += std::strlen(wanted);
    return true;
  }

  Json read(int depth) {
    if (depth > kDeepest) fail();
    Json value;
    if (take('{')) {
      value.kind_ = Json::Kind::kObject;
      fields(&value, depth);
    } else if (take('[')) {
      value.kind_ = Json::Kind::kArray;
      elements(&value, depth);
    } else if (take('"')) {
      value.kind_ = Json::Kind::kString;
      value.text_ = string();
    } else if (word("true") || word("false")) {
      value.kind_ = Json::Kind::kBool;
    } else if (!word("null")) {
      value.kind_ = Json::Kind::kNumber;
      value.number_ = number();
    }
    return value;
  }

  void fields(Json* value, int depth) {
    if (take('}')) return;
    do {
      expect('"');
      value->keys_.push_back(string());
      expect(':');
      value->items_.push_back(read(depth + 1));
    } while (take(','));
    expect('}');
  }

  void elements(Json* value, int depth) {
    if (take(']')) return;
    do {
      value->items_.push_back(read(depth + 1));
    } while (take(','));
    expect(']');
  }

  std::string string() {
    std::string result;
    while (at_ < text_.size() && text_[at_] != '"') {
      char c = text_[at_++];
      if (static_cast<unsigned char>(c) < ' ') fail();
      if (c == '\\') {
        c = at_ < text_.size() ? text_[at_++] : '\0';
        if (c == 'n') c = '\n';
        else if (c != '"' && c != '\\' && c != '/') fail();
      }
      result += c;
    }
    if (at_ >= text_.size()) fail();
    ++at_;
    return result;
  }

  double number() {
    const char* start = text_.c_str() + at_;
    if (!std::strchr("-0123456789", *start) || *start == '\0') fail();
    char* end = nullptr;
    const double value = std::strtod(start, &end);
    if (end == start || !std::isfinite(value)) fail();
    at_ += static_cast<size_t>(end - start);
    return value;
  }

  const std::string& text_;
  const std::string& name_;
  size_t at_ = 0;
};

Json Json::parse(const std::string& text, const std::string& name) {
  return JsonReader(text, name).document();
}

void Json::require(Kind kind, const char* what) const {
  if (kind_ != kind) throw Failure(std::string("manifest.json: expected ") + what);
}

bool Json::has(const std::string& key) const {
  for (const std::string& known : keys_) {
    if (known == key) return true;
  }
  return false;
}

const Json& Json::at(const std::string& key) const {
  require(Kind::kObject, "an object");
  for (size_t i = 0; i < keys_.size(); ++i) {
    if (keys_[i] == key) return items_[i];
  }
  throw Failure("manifest.json has no field " + key);
}

const std::vector<Json>& Json::items() const {
  require(Kind::kArray, "a list");
  return items_;
}

const std::string& Json::text() const {
  require(Kind::kString, "a string");
  return text_;
}

double Json::number() const {
  require(Kind::kNumber, "a number");
  return number_;
}

int64_t Json::integer() const {
  const double value = number();
  if (value != std::floor(value) || std::fabs(value) > 9e15) {
    throw Failure("manifest.json: expected an integer");
  }
  return static_cast<int64_t>(value);
}

}  // namespace vitq

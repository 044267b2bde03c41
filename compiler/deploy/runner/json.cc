#include "json.h"

#include <cmath>
#include <cstdio>

#include "failure.h"

#define YYJSON_DISABLE_WRITER 1
#define YYJSON_DISABLE_INCR_READER 1
#define YYJSON_DISABLE_UTILS 1
#define YYJSON_DISABLE_FAST_FP_CONV 1
#define YYJSON_DISABLE_NON_STANDARD 1
#include "third_party/yyjson/yyjson.c"

namespace vitq {
namespace {

constexpr double kLargestInteger = 9e15;  // every integer up to it is a double

std::shared_ptr<yyjson_doc> read(const std::string& text, yyjson_read_err* error) {
  char* bytes = const_cast<char*>(text.data());  // only read: the flag for "in situ" is not given
  return {yyjson_read_opts(bytes, text.size(), YYJSON_READ_NOFLAG, nullptr, error),
          [](yyjson_doc* document) { yyjson_doc_free(document); }};
}

bool is_utf8(const std::string& text) {
  yyjson_read_err error;
  return read('"' + text + '"', &error) != nullptr;
}

}  // namespace

Json Json::parse(const std::string& text, const std::string& name) {
  yyjson_read_err error;
  auto document = std::make_shared<Document>(Document{read(text, &error), name});
  if (!document->content) {
    throw Failure(name + " is not valid JSON at byte " + std::to_string(error.pos) + ": " +
                  error.msg);
  }
  yyjson_val* root = yyjson_doc_get_root(document->content.get());
  return Json(std::move(document), root);
}

void Json::fail(const std::string& what) const { throw Failure(document_->name + ": " + what); }

Json Json::at(const std::string& key) const {
  if (!yyjson_is_obj(value_)) fail("expected an object with the field " + key);
  yyjson_val* found = yyjson_obj_getn(value_, key.data(), key.size());
  if (!found) fail("no field " + key);
  return Json(document_, found);
}

bool Json::has(const std::string& key) const {
  if (!yyjson_is_obj(value_)) fail("expected an object");
  yyjson_val* found = yyjson_obj_getn(value_, key.data(), key.size());
  return found && !yyjson_is_null(found);
}

std::vector<Json> Json::items() const {
  if (!yyjson_is_arr(value_)) fail("expected a list");
  std::vector<Json> result;
  size_t index, count;
  yyjson_val* item;
  yyjson_arr_foreach(value_, index, count, item) result.push_back(Json(document_, item));
  return result;
}

std::string Json::text() const {
  if (!yyjson_is_str(value_)) fail("expected a string");
  std::string result(yyjson_get_str(value_), yyjson_get_len(value_));
  if (result.find('\0') != std::string::npos) fail("a string holds NUL");
  return result;
}

double Json::number() const {
  if (!yyjson_is_num(value_)) fail("expected a number");
  return yyjson_get_num(value_);
}

int64_t Json::integer() const {
  const double value = number();
  if (value != std::floor(value) || std::fabs(value) > kLargestInteger) fail("expected an integer");
  return static_cast<int64_t>(value);
}

std::string quoted(const std::string& text) {
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < ' ') {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", byte);
      result += escape;
      continue;
    }
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  if (!is_utf8(result)) {
    for (char& c : result) {
      if (static_cast<unsigned char>(c) >= 0x80) c = '?';
    }
  }
  return '"' + result + '"';
}

}  // namespace vitq

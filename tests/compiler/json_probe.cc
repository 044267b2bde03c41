// What the runner's JSON reader makes of its argument: a string's text, quoted again.
#include <cstdio>

#include "failure.h"
#include "json.h"

int main(int argc, char** argv) {
  if (argc != 3) return 9;
  const std::string text = argv[2];
  try {
    const bool reads = std::string(argv[1]) == "read";
    std::puts(vitq::quoted(reads ? vitq::Json::parse(text, "x.json").text() : text).c_str());
    return 0;
  } catch (const vitq::Failure& failure) {
    std::puts(failure.what());
    return failure.code;
  }
}

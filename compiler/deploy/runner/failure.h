// What goes wrong is one line on stderr and one of these exit codes.
#ifndef VITQ_FAILURE_H_
#define VITQ_FAILURE_H_

#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>

namespace vitq {

enum ExitCode : int {
  kFine = 0,
  kDifferent = 1,    // verify: an integer is not the golden one
  kMistake = 2,      // a wrong option, an unreadable input, a file that is not the bundle's
  kWrongDevice = 3,  // this processor lacks what the model was compiled for
};

class Failure : public std::runtime_error {
 public:
  explicit Failure(const std::string& line, ExitCode exit_code = kMistake)
      : std::runtime_error(line), code(exit_code) {}
  const ExitCode code;
};

// What main returns: usage if it is asked for, else what run does, failures reported.
inline int run_program(const char* name, const char* usage, int (*run)(int, char**), int argc,
                       char** argv) {
  if (argc > 1 && (!std::strcmp(argv[1], "--help") || !std::strcmp(argv[1], "-h"))) {
    std::fputs(usage, stdout);
    return kFine;
  }
  try {
    return run(argc, argv);
  } catch (const Failure& failure) {
    std::fprintf(stderr, "%s: %s\n", name, failure.what());
    return failure.code;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", name, error.what());
    return kMistake;
  }
}

}  // namespace vitq

#endif  // VITQ_FAILURE_H_

// main() of a program that runs one launch from a file, for the tests under
// ThreadSanitizer, which cannot be loaded into Python.
//
//   program CASE RESULT
//
// CASE, all numbers little-endian: length and bytes of the name of the kernel, a Launch,
// the number of arguments, and for each: 1 if it is an array (else 0), length, bytes.
// RESULT: the bytes of the arrays after the launch, in order.

#ifndef NEUROMM_CASE_MAIN_H
#define NEUROMM_CASE_MAIN_H

#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>

namespace neuromm_shim {

class CaseReader {
 public:
  explicit CaseReader(const char *path) : file_(path, std::ios::binary) {}
  template <typename T>
  T value() {
    T read{};
    file_.read(reinterpret_cast<char *>(&read), sizeof(T));
    return read;
  }
  std::vector<char> bytes() {
    std::vector<char> read(value<std::uint64_t>());
    file_.read(read.data(), static_cast<std::streamsize>(read.size()));
    return read;
  }
  bool whole() const { return bool(file_); }

 private:
  std::ifstream file_;
};

inline int run_case(const char *case_path, const char *result_path) {
  CaseReader reader(case_path);
  const std::vector<char> letters = reader.bytes();
  const std::string name(letters.begin(), letters.end());
  const Launch launch = reader.value<Launch>();
  const size_t n_arguments = reader.value<std::uint64_t>();
  std::vector<bool> is_array(n_arguments);
  std::vector<std::vector<char>> contents(n_arguments);
  std::vector<void *> pointers(n_arguments), arguments(n_arguments);
  for (size_t number = 0; number < n_arguments; ++number) {
    is_array[number] = reader.value<std::uint64_t>() != 0;
    contents[number] = reader.bytes();
    pointers[number] = contents[number].empty() ? nullptr : contents[number].data();
    arguments[number] = is_array[number] ? &pointers[number] : pointers[number];
  }
  if (!reader.whole()) return std::cerr << "the case is cut off\n", 2;
  for (const auto &[known, entry] : entries) {
    if (known != name) continue;
    if (const char *error = entry(&launch, arguments.data()))
      return std::cerr << error << "\n", 1;
    std::ofstream result(result_path, std::ios::binary);
    for (size_t number = 0; number < n_arguments; ++number)
      if (is_array[number])
        result.write(contents[number].data(),
                     static_cast<std::streamsize>(contents[number].size()));
    return result ? 0 : 2;
  }
  return std::cerr << "no kernel " << name << "\n", 2;
}

}  // namespace neuromm_shim

int main(int count, char **words) {
  if (count != 3) return std::cerr << "usage: program CASE RESULT\n", 2;
  return neuromm_shim::run_case(words[1], words[2]);
}

#endif  // NEUROMM_CASE_MAIN_H

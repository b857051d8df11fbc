// Needs the C++ library.
#include <string>

int main(int, char **words) { return std::string(*words).size() > 99; }

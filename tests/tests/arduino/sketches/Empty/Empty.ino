// What any sketch takes: the flash and RAM of the library are counted from here.
void setup() {}

void loop() {}

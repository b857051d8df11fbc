// Adds up the numbers in its arguments and on its standard input.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
)

func main() {
	words := os.Args[1:]
	input := bufio.NewScanner(os.Stdin)
	input.Split(bufio.ScanWords)
	for input.Scan() {
		words = append(words, input.Text())
	}
	if err := input.Err(); err != nil {
		fail(err.Error())
	}
	var sum int64
	for _, word := range words {
		number, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			fail("not a number: " + word)
		}
		sum += number
	}
	fmt.Println(sum)
}

func fail(problem string) {
	fmt.Fprintln(os.Stderr, problem)
	os.Exit(1)
}

;; Never ends, and never calls the host: only fuel or time can stop it.
(module
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $for_ever (br $for_ever))))

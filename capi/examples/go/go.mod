module ringwal.example/append

go 1.19

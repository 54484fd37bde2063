module millstream.dev/plugin

go 1.24

# The headers of translated kernels as a text in the library: mdl_sim_embed() sets MDL_SIM_TEXT
# to a generated C file. Run as a script (cmake -DOUT= -DFILES= -P), this writes that file.
if(CMAKE_SCRIPT_MODE_FILE)
  set(text "")
  string(REPLACE "," ";" FILES "${FILES}")
  foreach(file ${FILES})
    file(READ ${file} hex HEX)
    string(REGEX REPLACE "(..)" "0x\\1," bytes "${hex}")
    string(APPEND text "${bytes}")
  endforeach()
  file(WRITE ${OUT} "extern const char sim_header_text[];\n"
                    "const char sim_header_text[] = {${text}0};\n")
  return()
endif()

set(MDL_SIM_EMBED ${CMAKE_CURRENT_LIST_FILE})

macro(mdl_sim_embed)
  get_filename_component(sim_folder ${MDL_SIM_EMBED} DIRECTORY)
  set(MDL_SIM_TEXT ${CMAKE_CURRENT_BINARY_DIR}/sim_header_text.c)
  set(sim_headers simt.h half_numbers.h simt_math.h simt_memory.h simt_matrix.h)
  list(TRANSFORM sim_headers PREPEND ${sim_folder}/)
  string(REPLACE ";" "," sim_headers_list "${sim_headers}")
  add_custom_command(OUTPUT ${MDL_SIM_TEXT}
    COMMAND ${CMAKE_COMMAND} -DOUT=${MDL_SIM_TEXT} "-DFILES=${sim_headers_list}"
            -P ${MDL_SIM_EMBED}
    DEPENDS ${sim_headers} ${MDL_SIM_EMBED} VERBATIM)
endmacro()
